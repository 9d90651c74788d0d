"""Reading a prompt piece by piece, and writing the answer's text."""
