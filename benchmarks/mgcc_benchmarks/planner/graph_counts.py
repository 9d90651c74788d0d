"""Counting a bundle's own graphs: the products in its ONNX files, at the lengths of a request."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import onnx

from mgcc_ref.planner.counts import Lengths, NetworkWork, StageWork, Work, narrow_elements, request_calls
from mgcc_runtime.bundle.folder import read_manifest
from mgcc_runtime.denoise import Schedule
from mgcc_runtime.errors import BundleError
from mgcc_runtime.names import GRAPH_SUFFIX, SCHEDULE

#: Operators between a weight and the product that reads it.
_CARRIERS = {"DequantizeLinear", "QuantizeLinear", "Transpose", "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_MATRIX, _CONVOLUTION = {"MatMul", "Gemm"}, {"Conv", "ConvTranspose"}
#: Products of other forms; a graph that has them is refused rather than counted too low.
_OTHER_PRODUCTS = {"MatMulNBits", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "QLinearMatMul", "Attention",
                   "QLinearConv", "GroupQueryAttention", "MultiHeadAttention", "Einsum"}  # fmt: skip

Shape = tuple[int, ...]


def count_bundle(root: Path, lengths: Lengths) -> NetworkWork:
    """Every stage of a bundle of ONNX files in Q/DQ or floating-point form; BundleError for another form."""
    manifest = read_manifest(root)
    gate_fraction = Schedule.load(root / SCHEDULE).gate_fraction
    d, calls, own = manifest.dimensions, [], {}
    for name, stage, times, axes in request_calls(d, lengths, gate_fraction):
        entry = manifest.stages[stage]
        if not entry.file.endswith(GRAPH_SUFFIX):
            raise BundleError(f"stage {stage} is {entry.file}, expected ONNX; plan from the fp32 bundle or --profile")
        works = count_graph(root / entry.file, {**axes, "T": axes.get("S", 0) + axes.get("P", 0)})
        calls.append(StageWork(name, times, works))
        own[stage] = (sum(work.weights for work in works), sum(work.narrow for work in works))
    cache = 2 * d.layers * d.kv_heads * d.head_dim * d.context
    weights, narrow = (sum(column) for column in zip(*own.values(), strict=True))
    return NetworkWork(tuple(calls), weights, narrow, 4 * d.vocabulary * d.hidden, cache)


def count_graph(path: Path, axes: Mapping[str, int]) -> tuple[Work, ...]:
    """The products of one graph at these axis lengths; BundleError if a shape cannot be worked out."""
    # onnx's own inference stops at shapes that the graph computes, as the language model's does
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    model = onnx.load(str(path), load_external_data=False)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in axes:
                dim.dim_value = axes[dim.dim_param]
    del model.graph.value_info[:]  # shapes with the axes' names; they are inferred anew
    graph = SymbolicShapeInference.infer_shapes(model, auto_merge=True).graph
    shapes: dict[str, Shape] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes.setdefault(value.name, tuple(dim.dim_value for dim in dims))
    constant, makers = _constants(graph), {name: node for node in graph.node for name in node.output}
    works = []
    for node in graph.node:
        if node.op_type in _OTHER_PRODUCTS:
            raise BundleError(f"{path} has a {node.op_type}, which cannot be counted; plan from the fp32 bundle")
        if node.op_type in _MATRIX | _CONVOLUTION:
            names = (*node.input[:2], node.output[0])
            if missing := [name for name in names if name not in shapes]:
                raise BundleError(f"{path} leaves the shape of {missing[0]} open; plan with --profile")
            works.append(_work(node, [shapes[name] for name in names], [n in constant for n in names[:2]], makers))
    return tuple(works)


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Names of weights, also after operators that only change their form."""
    found = {t.name for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" or (node.op_type in _CARRIERS and node.input[0] in found):
            found.update(node.output)
    return found


def _work(
    node: onnx.NodeProto, shapes: list[Shape], constant: list[bool], makers: Mapping[str, onnx.NodeProto]
) -> Work:
    a, b, out = shapes
    if node.op_type == "Conv":
        flops = 2 * prod(out) * prod(b[1:])
    elif node.op_type == "ConvTranspose":
        flops = 2 * prod(a) * prod(b[1:])
    else:
        transposed = node.op_type == "Gemm" and any(t.name == "transA" and t.i for t in node.attribute)
        flops = 2 * prod(out) * (a[0] if transposed else a[-1])
    sizes = [prod(a), prod(b), prod(out)]
    if not any(constant):  # half of an attention, whose scores an engine never stores
        return Work(flops, 0, sum(sizes) - sizes[0 if _after_softmax(node.input[0], makers) else 2])
    weights = sum(size for size, is_weight in zip(sizes, constant, strict=False) if is_weight)
    return Work(flops, weights, sum(sizes) - weights, _narrow(node, b) if constant[1] else 0)


def _narrow(node: onnx.NodeProto, weight: Shape) -> int:
    """Elements of a weight, a product's second input, that take 4 bits where weights have 4."""
    if node.op_type not in _MATRIX or len(weight) != 2:
        return 0
    transposed = any(t.name == "transB" and t.i for t in node.attribute)
    return narrow_elements(*(weight[::-1] if transposed else weight))


def _after_softmax(name: str, makers: Mapping[str, onnx.NodeProto], depth: int = 4) -> bool:
    """Whether a tensor is a softmax, perhaps cleaned of NaN or cast since."""
    if name not in makers or not depth:
        return False
    maker = makers[name]
    return maker.op_type == "Softmax" or any(_after_softmax(i, makers, depth - 1) for i in maker.input)
