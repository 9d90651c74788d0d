"""Latency and memory on devices that are not here, predicted from a profile's work and published peaks."""
