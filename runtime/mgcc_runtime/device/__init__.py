"""What this machine is: its CPU's features, its NVIDIA driver, its allocator."""
