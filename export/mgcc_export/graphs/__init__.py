"""A stage as an ONNX graph in fp32: exported, and compared with PyTorch."""
