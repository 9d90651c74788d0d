"""Graphs: their files, weights that two of them share, layers that can be quantised, the fusing of small nodes."""
