"""The bundle on disk: one step from nothing to a whole folder; stages replaced in one, and kept for the next build."""
