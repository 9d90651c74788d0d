"""This runtime compared with others, in turns on the same machine with the same weights."""
