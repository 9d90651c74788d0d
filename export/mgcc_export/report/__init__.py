"""What a build did, as JSON and for a reader."""
