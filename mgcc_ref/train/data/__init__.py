"""Captioned pictures in their published formats: CC3M's table, WebDataset shards, COCO, Flickr30k Entities.

A reader opens the lists alone; a picture is read when its sample is drawn. Samples are drawn by number, so that a
killed run resumes with the next samples.
"""
