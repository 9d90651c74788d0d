"""The endpoints of the page, and those of whoever runs the server."""
