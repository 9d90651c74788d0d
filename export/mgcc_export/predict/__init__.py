"""What a build and a device will need, said before anything is built."""
