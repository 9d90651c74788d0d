"""Pictures: what a user gives, the pixel formats of the stages, and boxes drawn on a picture."""
