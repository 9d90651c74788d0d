"""Latency and memory on devices that are not here, held against published figures."""
