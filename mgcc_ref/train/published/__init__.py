"""Training around published weights: `align` and `grounder` of the paper's scale, on captioned pictures.

The language model and CLIP stay as they are; of the picture side nothing is trained here.
"""
