"""A stage in several graphs, one for each engine and precision, and the choice between them on this machine."""
