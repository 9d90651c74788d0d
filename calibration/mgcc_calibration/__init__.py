"""Lower precision: calibration data, Q/DQ graphs, weight-only graphs, and what each of them costs in quality."""
