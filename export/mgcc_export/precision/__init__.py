"""A graph below fp32: fp16, weights in 8 and 4 bits, and the ladder to the lowest precision that holds."""
