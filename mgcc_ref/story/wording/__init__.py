"""The words of StoryWorld: phrases, templates with choices, and the mentions of objects in a text."""
