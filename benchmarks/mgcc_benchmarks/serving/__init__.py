"""`mgcc serve` measured: what HTTP adds, how soon a cancel bites, memory under load, and coming back after a kill."""
