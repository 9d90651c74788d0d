"""Training around published weights: steps `align` and `grounder` at the paper's scale, on captioned pictures.

The language model and CLIP are frozen; the UNet and the autoencoder are not trained here.
"""
