"""The world of StoryWorld: sprites, scenes and their pictures, and facts about positions."""
