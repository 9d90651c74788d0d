"""One layer in 8 bits, in every form that engines multiply: the graph, its input, and what its integers give exactly.

Activations and weights are spread evenly over their range: what can overflow does.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from mgcc_calibration.graphs.edit import Array, add_weight, make_node
from mgcc_calibration.graphs.storage import serialised
from mgcc_calibration.quantise.grid import Grid, dequantised, round_to_nearest
from mgcc_calibration.quantise.matmul_nbits import pack_codes

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
class _Step:
    """A node; its inputs and outputs are names."""

    operator: str
    inputs: str
    output: str
    domain: str = ""
    attributes: Mapping[str, int | Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """`expected`: of the codes that the graph holds or makes, in whole numbers, then scaled; float64."""

    model: ir.Model
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
        model = _model([_Step("MatMulInteger", "x w", "y")], given, ir.DataType.INT32, {"w": codes})
        return Layer(model, given, (given.astype(np.int64) @ plain) * 1.0)
    step = (max(x.max(), 0) - min(x.min(), 0)) / np.float32(255)
    zero = np.round(-min(x.min(), 0) / step)
    moment = (np.round(x / step) + zero).clip(0, 255).astype(np.int64) - int(zero)
    expected = (moment @ plain) * np.float64(step) * scale
    if form is Form.DYNAMIC:
        steps = [_Step(form.value, "x w w_scale w_zero", "y", _MICROSOFT)]
    else:
        steps = [
            _Step("DynamicQuantizeLinear", "x", "codes step zero"),
            _Step("MatMulInteger", "codes w zero w_zero", "sums"),
            _Step("Cast", "sums", "floats", attributes={"to": int(ir.DataType.FLOAT)}),
            _Step("Mul", "step w_scale", "steps"),
            _Step("Mul", "floats steps", "y"),
        ]
    return Layer(_model(steps, x, ir.DataType.FLOAT, constants), x, expected)


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
    product = "product" if form is Form.QDQ_CONV else "y"
    steps = [
        _Step("QuantizeLinear", "x step zero", "codes"),
        _Step("DequantizeLinear", "codes step zero", "dequantised"),
        _Step("DequantizeLinear", "w w_scale w_zero", "weights", attributes={"axis": 0 if conv else 1}),
        _Step("Conv", "dequantised weights", product, attributes={"pads": [1, 1, 1, 1]})
        if conv
        else _Step("MatMul", "dequantised weights", product),
    ]
    if form is Form.QDQ_CONV:
        constants["y_step"] = np.asarray(np.abs(expected).max() / 127, np.float32)
        steps += [
            _Step("QuantizeLinear", "product y_step zero", "y_codes"),
            _Step("DequantizeLinear", "y_codes y_step zero", "y"),
        ]
        expected = np.round(expected / constants["y_step"]).clip(-127, 127) * constants["y_step"]
    return Layer(_model(steps, x, ir.DataType.FLOAT, constants), x, expected)


def _convolved(x: Array, w: Array) -> Array:
    """3 x 3, padded by one."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    return np.asarray(np.einsum("bchwij,ocij->bohw", windows, w, optimize=True))


def _blocks(x: Array, w: Array, grid: Grid) -> Layer:
    """MatMulNBits; at accuracy level 4 activations get int8 codes with a scale for each block of inputs."""
    codes, scales = round_to_nearest(w, grid)
    blocks = x.reshape(len(x), -1, _BLOCK)
    unit = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    moment = (np.round(blocks / unit).astype(np.float64) * unit).reshape(x.shape)
    sizes = {"K": w.shape[0], "N": w.shape[1], "bits": grid.bits, "block_size": grid.block, "accuracy_level": 4}
    step = _Step("MatMulNBits", "x w scales", "y", _MICROSOFT, sizes)
    constants = {"w": pack_codes(codes, grid), "scales": np.ascontiguousarray(scales.T.reshape(-1))}
    expected = moment @ dequantised(codes, scales, grid).astype(np.float64)
    return Layer(_model([step], x, ir.DataType.FLOAT, constants), x, expected)


def _model(steps: Sequence[_Step], x: Array, result: ir.DataType, constants: Mapping[str, Array]) -> ir.Model:
    given = ir.val("x", ir.DataType.from_numpy(x.dtype), x.shape)
    graph = ir.Graph([given], [], nodes=[], opset_imports={"": 18, _MICROSOFT: 1}, name="layer")
    values = {"x": given, **{name: add_weight(graph, name, value) for name, value in constants.items()}}
    for step in steps:
        inputs = [values[name] for name in step.inputs.split()]
        node = make_node(step.operator, inputs, step.output.split(), "", step.domain, **step.attributes)
        values |= {str(value.name): value for value in node.outputs}
        graph.append(node)
    values["y"].type = ir.TensorType(result)
    graph.outputs.append(values["y"])
    return ir.Model(graph, ir_version=10)


def error_db(layer: Layer, found: Array) -> float:
    """Signal to noise of what an engine gave against the exact integers, at most 150 dB."""
    wrong = float(np.linalg.norm(found - layer.expected))
    size = float(np.linalg.norm(layer.expected))
    return min(150.0, 20 * float(np.log10(size / wrong))) if wrong > 0 else 150.0


#: What an opened layer is to the callers: input to output.
Run = Callable[[Array], Array]


def on_onnxruntime(model: ir.Model, *, exact: bool) -> Run:
    """Opened as the runtime does it (`exact`), or with ONNX Runtime's own settings; one thread."""
    import onnxruntime as ort

    from mgcc_runtime.engines.onnxruntime.cpu import cpu_settings

    settings = cpu_settings(1) if exact else ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(serialised(model), settings, providers=["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run(None, {"x": x})[0])


def on_openvino(model: ir.Model) -> Run:
    """Opened as the runtime does it; one thread."""
    import openvino as ov

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    core = ov.Core()
    request = core.compile_model(core.read_model(serialised(model)), "CPU", settings).create_infer_request()
    return lambda x: np.array(request.infer({"x": x})[0])
