"""One layer in 8 bits, in every form that engines multiply: the graph, its input, and what its integers give exactly.

Activations and weights are spread evenly over their range: what can overflow does.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mgcc_calibration.grid import Grid, dequantised, round_to_nearest
from mgcc_calibration.weight_only import pack_codes

Array = NDArray[Any]
_MICROSOFT = "com.microsoft"
_BLOCK = 32


class Form(enum.StrEnum):
    """How a layer is written."""

    MATMUL_INTEGER = "MatMulInteger"  # activations in the moment's range, or given as codes where they are signed
    DYNAMIC = "DynamicQuantizeMatMul"
    QDQ_MATMUL = "Q/DQ MatMul"
    QDQ_CONV = "Q/DQ Conv"  # pairs at inputs and output, which ONNX Runtime makes a QLinearConv of
    QDQ_CONV_INPUTS = "Q/DQ Conv, inputs alone"
    NBITS_8 = "MatMulNBits, 8 bits, accuracy level 4"
    NBITS_4 = "MatMulNBits, 4 bits, accuracy level 4"


@dataclass(frozen=True)
class Codes:
    """8-bit codes: their type, and the largest magnitude from the zero point."""

    dtype: type[np.signedinteger[Any]] | type[np.unsignedinteger[Any]]
    most: int = 127

    @property
    def zero(self) -> int:
        return 0 if self.dtype is np.int8 else 128

    def __str__(self) -> str:
        return f"{'s' if self.dtype is np.int8 else 'u'}8" + ("" if self.most == 127 else f", to {self.most}")


S8, U8, S7 = Codes(np.int8), Codes(np.uint8), Codes(np.int8, 64)
#: Pairs of activations and weights for each form that takes them.
PAIRS: Mapping[Form, tuple[tuple[Codes, Codes], ...]] = {
    Form.MATMUL_INTEGER: ((U8, S8), (U8, U8), (S8, S8), (U8, S7)),
    Form.DYNAMIC: ((U8, S8), (U8, U8), (U8, S7)),
    Form.QDQ_MATMUL: ((S8, S8), (S8, S7), (U8, S8), (U8, S7)),
    Form.QDQ_CONV: ((S8, S8), (S8, S7), (U8, S8), (U8, S7)),
    Form.QDQ_CONV_INPUTS: ((S8, S8), (S8, S7), (U8, S8), (U8, S7)),
    Form.NBITS_8: ((S8, U8),),
    Form.NBITS_4: ((S8, U8),),
}


@dataclass(frozen=True)
class Layer:
    """`expected`: of the codes that the graph holds or makes, in whole numbers, then scaled; float64."""

    model: ModelProto
    feed: Array  # for the input `x`
    expected: Array


def make_layer(form: Form, activations: Codes, weights: Codes, positions: int = 100) -> Layer:
    """A product (positions, 576) by (576, 1,536), or a 3 x 3 convolution of 128 channels on 16 x 16, seeded."""
    rng = np.random.default_rng(0)
    if form in (Form.QDQ_CONV, Form.QDQ_CONV_INPUTS):
        x = rng.uniform(-1, 1, (2, 128, 16, 16)).astype(np.float32)
        return _static(form, x, rng.uniform(-0.1, 0.1, (128, 128, 3, 3)).astype(np.float32), activations, weights)
    x = rng.uniform(-1, 1, (positions, 576)).astype(np.float32)
    w = rng.uniform(-0.1, 0.1, (576, 1536)).astype(np.float32)
    if form in (Form.NBITS_8, Form.NBITS_4):
        return _blocks(x, w, Grid(8 if form is Form.NBITS_8 else 4, _BLOCK))
    if form is Form.QDQ_MATMUL:
        return _static(form, x, w, activations, weights)
    return _dynamic(form, x, w, activations, weights)


def _quantised(values: Array, codes: Codes, axis: int | None) -> tuple[Array, Array]:
    """Codes and scales, of the whole or of each place on `axis`."""
    others = None if axis is None else tuple(i for i in range(values.ndim) if i != axis)
    scale = np.asarray(np.abs(values).max(axis=others) / np.float32(codes.most), np.float32)
    shape = [1] * values.ndim
    if axis is not None:
        shape[axis] = -1
    steps = np.round(values / scale.reshape(shape)).clip(-codes.most, codes.most)
    return (steps + codes.zero).astype(codes.dtype), scale


def _dynamic(form: Form, x: Array, w: Array, activations: Codes, weights: Codes) -> Layer:
    codes, scale = _quantised(w, weights, 1)
    constants = {"w": codes, "w_scale": scale, "w_zero": np.full(scale.shape, weights.zero, weights.dtype)}
    plain = codes.astype(np.int64) - weights.zero
    if activations.dtype is np.int8:  # nothing makes signed codes on the way: they are the input
        given, _ = _quantised(x, activations, None)
        node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
        return Layer(
            _model([node], given, TensorProto.INT32, {"w": codes}), given, (given.astype(np.int64) @ plain) * 1.0
        )
    step = (max(x.max(), 0) - min(x.min(), 0)) / np.float32(255)
    zero = np.round(-min(x.min(), 0) / step)
    moment = (np.round(x / step) + zero).clip(0, 255).astype(np.int64) - int(zero)
    expected = (moment @ plain) * np.float64(step) * scale
    if form is Form.DYNAMIC:
        nodes = [helper.make_node(form.value, ["x", "w", "w_scale", "w_zero"], ["y"], domain=_MICROSOFT)]
    else:
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["codes", "step", "zero"]),
            helper.make_node("MatMulInteger", ["codes", "w", "zero", "w_zero"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["step", "w_scale"], ["steps"]),
            helper.make_node("Mul", ["floats", "steps"], ["y"]),
        ]
    return Layer(_model(nodes, x, TensorProto.FLOAT, constants), x, expected)


def _static(form: Form, x: Array, w: Array, activations: Codes, weights: Codes) -> Layer:
    conv = form is not Form.QDQ_MATMUL
    codes, scale = _quantised(w, weights, 0 if conv else 1)
    moment, step = _quantised(x, activations, None)
    plain_x, plain_w = moment.astype(np.float64) - activations.zero, codes.astype(np.float64) - weights.zero
    exact = _convolved(plain_x, plain_w) if conv else plain_x @ plain_w
    expected = exact * float(step) * (scale[:, None, None] if conv else scale).astype(np.float64)
    zero = np.array(activations.zero, activations.dtype)
    constants = {
        "step": step, "zero": zero, "w": codes, "w_scale": scale,
        "w_zero": np.full(scale.shape, weights.zero, weights.dtype),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["dequantised"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["weights"], axis=0 if conv else 1),
        helper.make_node("Conv" if conv else "MatMul", ["dequantised", "weights"], ["y"]),
    ]
    if conv:
        nodes[-1].attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    if form is Form.QDQ_CONV:
        nodes[-1].output[0] = "product"
        constants["y_step"] = np.asarray(np.abs(expected).max() / 127, np.float32)
        nodes += [
            helper.make_node("QuantizeLinear", ["product", "y_step", "zero"], ["y_codes"]),
            helper.make_node("DequantizeLinear", ["y_codes", "y_step", "zero"], ["y"]),
        ]
        expected = np.round(expected / constants["y_step"]).clip(-127, 127) * constants["y_step"]
    return Layer(_model(nodes, x, TensorProto.FLOAT, constants), x, expected)


def _convolved(x: Array, w: Array) -> Array:
    """3 x 3, padded by one."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    return np.asarray(np.einsum("bchwij,ocij->bohw", windows, w, optimize=True))


def _blocks(x: Array, w: Array, grid: Grid) -> Layer:
    """MatMulNBits; at accuracy level 4 activations get int8 codes with a scale for each block of inputs."""
    codes, scales = round_to_nearest(w, grid)
    blocks = x.reshape(len(x), -1, _BLOCK)
    step = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    moment = (np.round(blocks / step).astype(np.float64) * step).reshape(x.shape)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "scales"], ["y"], domain=_MICROSOFT, K=w.shape[0], N=w.shape[1], bits=grid.bits,
        block_size=grid.block, accuracy_level=4,
    )  # fmt: skip
    constants = {"w": pack_codes(codes, grid), "scales": np.ascontiguousarray(scales.T.reshape(-1))}
    expected = moment @ dequantised(codes, scales, grid).astype(np.float64)
    return Layer(_model([node], x, TensorProto.FLOAT, constants), x, expected)


def _model(nodes: list[NodeProto], x: Array, result: int, constants: Mapping[str, Array]) -> ModelProto:
    given = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    found = helper.make_tensor_value_info("y", result, None)
    weights = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "layer", [given], [found], weights)
    sets = [helper.make_opsetid("", 18), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=10)


def error_db(layer: Layer, found: Array) -> float:
    """Signal to noise of what an engine gave against the exact integers, at most 150 dB."""
    wrong = float(np.linalg.norm(found - layer.expected))
    size = float(np.linalg.norm(layer.expected))
    return min(150.0, 20 * float(np.log10(size / wrong))) if wrong > 0 else 150.0


#: What an opened layer is to the callers: input to output.
Run = Callable[[Array], Array]


def on_onnxruntime(model: ModelProto, *, exact: bool) -> Run:
    """Opened as the runtime does it (`exact`), or with ONNX Runtime's own settings; one thread."""
    import onnxruntime as ort

    from mgcc_runtime.engines.onnxruntime import cpu_settings

    settings = cpu_settings(1) if exact else ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run(None, {"x": x})[0])


def on_openvino(model: ModelProto) -> Run:
    """Opened as the runtime does it; one thread."""
    import openvino as ov

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    core = ov.Core()
    request = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings).create_infer_request()
    return lambda x: np.array(request.infer({"x": x})[0])
