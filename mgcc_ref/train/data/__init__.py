"""Captioned pictures as others publish them: CC3M's table, WebDataset shards, COCO, Flickr30k Entities.

A reader opens the lists alone; a picture is read when its sample is drawn, by number, so that a killed run goes on with
the very samples that would have come next.
"""
