"""Weights in 8 or 4 bits, activations in fp16: DequantizeLinear before each large weight of an fp16 graph.

Rounding to nearest, symmetric, no data needed. 8 bits: one scale for each output channel. 4 bits: one for each block
of 128 or 64 inputs of a matrix, as TensorRT's kernels want them; what has no such block gets 8 bits. A weight that
`width_search.py` found to cost too much keeps the next width: 8 bits instead of 4, fp16 instead of 8. A weight that
several nodes read stays in fp16, see `find_candidates`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript import version_converter

from mgcc_calibration.candidates.fp16_twin import HALF_OPSET
from mgcc_calibration.graphs.edit import drop_unused_weights
from mgcc_calibration.graphs.storage import load_graph, save_graph

BLOCKS = (128, 64)  # the sizes that TensorRT has 4-bit kernels for, the smaller file first
#: Below this a weight costs more as a node than it saves; below this many channels it is an edge of the network.
LEAST_ELEMENTS, LEAST_CHANNELS = 1024, 16
#: Clipping ratios tried for a block of 4-bit weights: its largest weight is worth less than the sixteen levels.
_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8)

#: operator -> axis of the output channels of its weight, which is its second input.
_CHANNEL_AXIS = {"MatMul": 1, "Gemm": 1, "Conv": 0, "ConvTranspose": 1}
_HALF = ir.DataType.FLOAT16

Array = NDArray[Any]


class Bits(enum.IntEnum):
    """Width of a quantised weight."""

    EIGHT = 8
    FOUR = 4


#: The first opset that has what a graph with such weights needs: scales in fp16; 4-bit types and blocks. Not one for
#: both: TensorRT 10.3 documents opsets up to 20, and reads of 21 what 4 bits need.
OPSETS = {Bits.EIGHT: HALF_OPSET, Bits.FOUR: 21}


@dataclass(frozen=True)
class QuantisedGraph:
    """What `write_quantised` made: how many weights have which width, and their bytes before and after."""

    eight: int
    four: int
    left: int  # large weights that stay fp16
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Form:
    """How one weight is stored."""

    bits: Bits
    axis: int
    block: int = 0  # 0: one scale for a whole channel

    def quantise(self, weight: Array) -> tuple[Array, Array]:
        """Integers of the weight's shape, and fp16 scales."""
        return quantise_blocks(weight, self.block) if self.block else quantise_channels(weight, self.axis)

    def rounded(self, weight: Array) -> NDArray[np.float16]:
        """The fp16 weight that the graph multiplies with."""
        q, scale = self.quantise(weight)
        values, shape = q.astype(np.float32), [1] * weight.ndim
        if self.block:
            return (values * np.repeat(scale.astype(np.float32), self.block, axis=0)).astype(np.float16)
        shape[self.axis] = -1
        return (values * scale.astype(np.float32).reshape(shape)).astype(np.float16)


@dataclass(frozen=True)
class QuantisableWeight:
    """A weight worth quantising, and the node that reads it as its second input."""

    weight: ir.Value
    reader: ir.Node

    @property
    def name(self) -> str:
        assert self.weight.name is not None
        return self.weight.name

    @property
    def values(self) -> NDArray[np.float16]:
        assert self.weight.const_value is not None
        found: NDArray[np.float16] = self.weight.const_value.numpy()
        return found

    def form(self, bits: Bits) -> Form:
        """The narrowest form for `bits`."""
        return _form(self.reader, self.weight, bits)


def find_candidates(model: ir.Model, bits: Bits) -> list[QuantisableWeight]:
    """Bring the fp16 graph into the form that `bits` need, and list its weights in the order of their first readers.

    Those with a single reader. The compiler of TensorRT-RTX 1.7 fails on matrices of 8 or 4 bits that it multiplies one
    input with at once, as those of an attention's query, key and value, where each is read in two places (the rounds of
    the grounder). As one fp16 matrix a weight takes no more than two copies of 8 bits, which it does compile.
    """
    version_converter.convert_version(model, OPSETS[bits])
    graph = model.graph
    if bits is Bits.FOUR:
        for node in [n for n in graph if n.op_type == "Gemm"]:
            _split_gemm(graph, node)
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in graph:
        if (weight := _weight_of(node)) is not None:
            readers.setdefault(weight, []).append(node)
    return [QuantisableWeight(weight, nodes[0]) for weight, nodes in readers.items() if len(nodes) == 1]


def write_quantised(source: Path, target: Path, bits: Bits, wider: Collection[str] = ()) -> QuantisedGraph:
    """Quantise the weights of the fp16 graph `source`, write it to `target`; those in `wider` keep the next width."""
    model = load_graph(source)
    before = _stored(model.graph)
    graph = model.graph
    counts = {Bits.EIGHT: 0, Bits.FOUR: 0}
    for candidate in find_candidates(model, bits):
        if candidate.name in wider and bits is Bits.EIGHT:
            continue
        form = candidate.form(Bits.EIGHT if candidate.name in wider else bits)
        counts[form.bits] += 1
        candidate.reader.replace_input_with(1, _dequantised(graph, candidate, form))
    drop_unused_weights(graph)
    left = sum(
        1 for v in graph.initializers.values() if v.dtype in (_HALF, ir.DataType.FLOAT) and _size(v) >= LEAST_ELEMENTS
    )
    save_graph(model, target)
    return QuantisedGraph(counts[Bits.EIGHT], counts[Bits.FOUR], left, before, _stored(graph))


def _weight_of(node: ir.Node) -> ir.Value | None:
    """The node's fp16 weight, if it is one worth quantising."""
    if node.op_type not in _CHANNEL_AXIS:
        return None
    weight = node.inputs[1]
    if weight is None or not weight.is_initializer() or weight.dtype is not _HALF or weight.const_value is None:
        return None
    shape = _shape(weight)
    small = len(shape) < 2 or min(shape[:2]) < LEAST_CHANNELS or _size(weight) < LEAST_ELEMENTS
    return None if small else weight


def _form(node: ir.Node, weight: ir.Value, bits: Bits) -> Form:
    transposed = node.op_type == "Gemm" and _integer(node, "transB")
    axis = 0 if transposed else _CHANNEL_AXIS[node.op_type]
    if bits is Bits.FOUR and node.op_type == "MatMul" and len(_shape(weight)) == 2:
        for block in BLOCKS:
            if _shape(weight)[0] % block == 0:
                return Form(Bits.FOUR, 0, block)
    return Form(Bits.EIGHT, axis)


def _dequantised(graph: ir.Graph, candidate: QuantisableWeight, form: Form) -> ir.Value:
    """Put a DequantizeLinear of the quantised weight before its reader; returns its result."""
    weight, name = candidate.weight, candidate.name
    shape = list(_shape(weight))
    if form.block:
        scale_shape, kind = [shape[0] // form.block, shape[1]], ir.DataType.INT4
    else:
        scale_shape, kind = [shape[form.axis]], ir.DataType.INT8
    # computed while the file is written and then dropped: one weight at a time is in memory, its scales a little longer
    scales: list[Array] = []

    def integers() -> Array:
        values, found = form.quantise(candidate.values)
        scales.append(found)
        return values

    q = _lazy(graph, f"{name}.q", kind, shape, integers)
    scale = _lazy(
        graph, f"{name}.scale", _HALF, scale_shape,
        lambda: scales.pop() if scales else form.quantise(candidate.values)[1],
    )  # fmt: skip
    inputs, attributes = [q, scale], [ir.AttrInt64("axis", form.axis)]
    if form.block:
        attributes.append(ir.AttrInt64("block_size", form.block))
    else:
        # ONNX Runtime 1.32 puts a scalar in the place of an absent one and then refuses it, below opset 21
        inputs.append(_lazy(graph, f"{name}.zero", kind, scale_shape, lambda: np.zeros(scale_shape, np.int8)))
    dequantise = ir.Node("", "DequantizeLinear", inputs, attributes, num_outputs=1, name=f"dq.{name}")
    result = dequantise.outputs[0]
    result.name, result.shape, result.type = f"{name}.dq", ir.Shape(shape), ir.TensorType(_HALF)
    graph.insert_before(candidate.reader, dequantise)
    return result


def _lazy(graph: ir.Graph, name: str, kind: ir.DataType, shape: list[int], make: Callable[[], Array]) -> ir.Value:
    tensor = ir.LazyTensor(lambda: ir.Tensor(make(), dtype=kind, name=name), kind, ir.Shape(shape), name=name)
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(kind), const_value=tensor)
    graph.initializers[name] = value
    return value


def quantise_channels(weight: Array, axis: int) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """8 bits, one scale for each index of `axis`: int8 of the weight's shape, and fp16 scales (channels,)."""
    values = weight.astype(np.float32)
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = _scale(np.abs(values).max(axis=others), 127)
    shape = [1] * values.ndim
    shape[axis] = -1
    q = np.clip(np.rint(values / scale.astype(np.float32).reshape(shape)), -127, 127)
    return q.astype(np.int8), scale


def quantise_blocks(weight: Array, block: int) -> tuple[Array, NDArray[np.float16]]:
    """4 bits of a (K, N) matrix, one scale for each `block` of K: int4 (K, N) and fp16 scales (K / block, N).

    Of several clipping ratios each block takes the one of the least squared error.
    """
    values = weight.astype(np.float32).reshape(-1, block, weight.shape[1])  # (K / block, block, N)
    largest = np.abs(values).max(axis=1)
    best_error = np.full(largest.shape, np.inf, np.float32)
    best_scale = np.ones(largest.shape, np.float16)
    for ratio in _RATIOS:
        scale = _scale(largest * ratio, 7)
        error = np.square(_round4(values, scale) * scale.astype(np.float32)[:, None] - values).sum(axis=1)
        better = error < best_error
        best_error, best_scale = np.where(better, error, best_error), np.where(better, scale, best_scale)
    return _round4(values, best_scale).reshape(weight.shape).astype(ir.DataType.INT4.numpy()), best_scale


def _round4(values: NDArray[np.float32], scale: NDArray[np.float16]) -> NDArray[np.float32]:
    rounded: NDArray[np.float32] = np.clip(np.rint(values / scale.astype(np.float32)[:, None]), -8, 7)
    return rounded


def _scale(largest: NDArray[np.float32], levels: int) -> NDArray[np.float16]:
    """fp16, since that is what the graph multiplies by; 1 for a channel of zeros."""
    scale = (largest / levels).astype(np.float16)
    return np.where(scale > 0, scale, np.float16(1))


def _split_gemm(graph: ir.Graph, node: ir.Node) -> None:
    """A plain Gemm as MatMul and Add: 4-bit kernels exist for MatMul alone (a tool that left Gemm out lost half)."""
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    plain = not _integer(node, "transA") and all(
        a is None or a.as_float() == 1.0 for a in (node.attributes.get("alpha"), node.attributes.get("beta"))
    )
    if not plain or weight is None or not weight.is_initializer() or weight.const_value is None:
        return
    if len(weight.uses()) > 1:
        return  # which stays as it is
    if _integer(node, "transB"):
        tensor, shape = weight.const_value, list(_shape(weight))[::-1]
        kind = weight.dtype
        assert kind is not None
        weight = _lazy(graph, f"{weight.name}.t", kind, shape, lambda: np.ascontiguousarray(tensor.numpy().T))
    product = ir.Node("", "MatMul", [node.inputs[0], weight], num_outputs=1, name=f"{node.name}.matmul")
    result = node.outputs[0]
    product.outputs[0].type, product.outputs[0].shape = result.type, result.shape
    product.outputs[0].name = f"{result.name}.product"
    nodes = [product]
    if bias is not None:
        add = ir.Node("", "Add", [product.outputs[0], bias], num_outputs=1, name=f"{node.name}.add")
        nodes.append(add)
    last = nodes[-1].outputs[0]
    last.type, last.shape = result.type, result.shape
    graph.insert_before(node, nodes)
    name = result.name
    ir.convenience.replace_all_uses_with(result, last, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    last.name = name


def _shape(value: ir.Value) -> tuple[int, ...]:
    assert value.const_value is not None
    return tuple(value.const_value.shape.numpy())


def _size(value: ir.Value) -> int:
    return int(np.prod(_shape(value))) if value.const_value is not None else 0


def _stored(graph: ir.Graph) -> int:
    return sum(v.const_value.nbytes for v in graph.initializers.values() if v.const_value is not None)


def _integer(node: ir.Node, name: str) -> int:
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None else 0
