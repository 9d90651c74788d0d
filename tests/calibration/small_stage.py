"""A small stage in which every rule of calibration has something to find.

latents -> conv_in -> [conv1 + timestep's offset -> SiLU -> conv2] + residual -> norm -> two linear layers and a
softmax -> conv_out. The norm's scale makes one channel 30 times as loud as the rest, as in real transformers.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from mgcc_calibration.graphs.graph import Graph
from mgcc_runtime.contract import DType, StageSpec, TensorSpec

CHANNELS, SIDE, LOUD = 16, 8, 5
SHAPE = (1, 4, SIDE, SIDE)
SPEC = StageSpec(
    "unet",
    (TensorSpec("latents", DType.FLOAT32, SHAPE, ""), TensorSpec("timestep", DType.FLOAT32, (1,), "")),
    (TensorSpec("prediction", DType.FLOAT32, SHAPE, ""),),
    "",
)


class _Builder:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def const(self, name: str, value: object, dtype: type = np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def random(self, name: str, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        return self.const(name, self.rng.normal(0, fan_in**-0.5, shape))

    def conv(self, name: str, x: str, inner: int, outer: int) -> str:
        weight, bias = self.random(f"{name}_w", outer, inner, 3, 3), self.const(f"{name}_b", np.full(outer, 0.01))
        return self.op("Conv", name, x, weight, bias, pads=[1, 1, 1, 1])

    def linear(self, name: str, x: str, inner: int, outer: int) -> str:
        return self.op("MatMul", name, x, self.random(f"{name}_w", inner, outer))

    def silu(self, name: str, x: str) -> str:
        return self.op("Mul", name, x, self.op("Sigmoid", f"{name}_sigmoid", x))


def make_model(opset: int = 18) -> onnx.ModelProto:
    """The stage's graph; weights are seeded."""
    b = _Builder()
    time = b.op("Unsqueeze", "time_row", "timestep", b.const("axis0", [0], np.int64))
    time = b.op("Mul", "time_scaled", time, b.const("per_mille", 1e-3))
    time = b.op("Gemm", "time_embed", time, b.random("time_w", 1, CHANNELS))
    offset = b.op("Unsqueeze", "offset", time, b.const("axes23", [2, 3], np.int64))
    x = b.conv("conv_in", "latents", 4, CHANNELS)
    inner = b.op("Add", "add_time", b.conv("conv1", b.silu("silu1", x), CHANNELS, CHANNELS), offset)
    inner = b.conv("conv2", b.silu("silu2", inner), CHANNELS, CHANNELS)
    x = b.op("Add", "residual", inner, x)
    tokens = b.op("Reshape", "flat", x, b.const("flat_shape", [1, CHANNELS, SIDE * SIDE], np.int64))
    tokens = b.op("Transpose", "tokens", tokens, perm=[0, 2, 1])
    scale = np.ones(CHANNELS)
    scale[LOUD] = 30.0
    norm = b.op("LayerNormalization", "norm", tokens, b.const("norm_w", scale), b.const("norm_b", np.zeros(CHANNELS)))
    first = b.linear("to_a", norm, CHANNELS, CHANNELS)
    gate = b.op("Softmax", "softmax", b.linear("to_b", norm, CHANNELS, CHANNELS), axis=-1)
    mixed = b.linear("to_out", b.op("Mul", "gated", first, gate), CHANNELS, CHANNELS)
    back = b.op("Transpose", "back", mixed, perm=[0, 2, 1])
    back = b.op("Reshape", "image", back, b.const("image_shape", [1, CHANNELS, SIDE, SIDE], np.int64))
    last = b.conv("conv_out", b.op("Add", "skip", back, x), CHANNELS, 4)
    b.nodes[-1].output[0] = "prediction"
    assert last == "conv_out_out"
    inputs = [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape) for t in SPEC.inputs]
    outputs = [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, SHAPE)]
    graph = helper.make_graph(b.nodes, "small", inputs, outputs, b.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def make_graph() -> Graph:
    return graph_of(make_model())


def graph_of(model: onnx.ModelProto) -> Graph:
    return Graph(ir.from_proto(model))


def proto_of(graph: Graph) -> onnx.ModelProto:
    """The graph as it would be written, for onnx's own checks and readers."""
    model: onnx.ModelProto = ir.to_proto(graph.model)
    return model


def samples(count: int = 12, seed: int = 1):
    """Samples whose size grows with the timestep, as latents' does. A callable, as calibration wants it."""

    def again():
        rng = np.random.default_rng(seed)
        for i in range(count):
            size = 0.7 + 0.8 * i / count
            values = (size * rng.standard_normal(SHAPE)).astype(np.float32)
            yield {"latents": values, "timestep": np.array([1000 * i / count], np.float32)}

    return again


def run(graph: Graph, feeds):
    return graph.session().run(["prediction"], feeds)[0]
