"""The sides of a comparison, one engine or library a file; each is loaded in a process of its own."""
