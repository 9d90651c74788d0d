"""Quantised graphs: ranges of activations, Q/DQ pairs, and weight-only layers in 8 and 4 bits."""
