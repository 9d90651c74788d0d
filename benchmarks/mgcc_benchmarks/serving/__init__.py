"""`mgcc serve` measured: what HTTP adds, the delay of a cancel, memory under load, and recovery after a kill."""
