"""TensorRT and TensorRT-RTX, and what of the CUDA driver their sessions need."""
