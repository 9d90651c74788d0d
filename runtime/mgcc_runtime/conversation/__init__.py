"""A conversation: its turns, what of them is kept, and its file."""
