"""A model that is too large for memory: a language model segment by segment, other stages with their parts alone."""
