"""ONNX Runtime, on the CPU and on GPUs; graphs that write their cache in place."""
