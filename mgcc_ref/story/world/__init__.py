"""The world of StoryWorld: sprites, scenes and their pictures, and what can be said of where things are."""
