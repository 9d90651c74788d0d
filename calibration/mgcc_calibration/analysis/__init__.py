"""What quantisation costs: by layer, in pictures, in perplexity, and in the integer products of an engine."""
