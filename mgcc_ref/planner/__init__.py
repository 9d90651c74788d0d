"""Latency and memory on devices, predicted from a profile's work and the devices' published peaks."""
