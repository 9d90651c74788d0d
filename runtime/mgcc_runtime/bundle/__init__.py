"""The bundle: a folder with everything a device needs, and its manifest."""
