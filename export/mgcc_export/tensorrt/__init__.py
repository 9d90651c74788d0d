"""TensorRT and TensorRT-RTX: what their parsers take, what their builders are told, and engines built with them."""
