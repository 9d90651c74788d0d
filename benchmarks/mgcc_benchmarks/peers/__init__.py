"""This runtime beside others on the same machine with the same weights, in turns."""
