"""The words of StoryWorld: phrases, templates with choices, and other words of the same meaning."""
