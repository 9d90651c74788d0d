"""HTTP as bytes: bodies that are taken within limits, their fields, pictures in data URLs, streams of events."""
