"""Calibration data: the requests it is captured from, the capture through the runtime, and the samples on disk."""
