"""What is measured on a device: speed, power, and whether it gives what the reference gives."""
