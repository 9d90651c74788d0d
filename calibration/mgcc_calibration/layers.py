"""Which nodes of a graph can be quantised, and which of those a rule leaves alone.

A layer is a Conv, Gemm or MatMul with a constant weight. Everything else, norms, softmax, attention's own
products and activation functions, stays as it is: none of it holds weights, and all of it is sensitive.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from onnx import NodeProto

from mgcc_calibration.graph import Graph, constant_value

#: Inputs that say how, not what: layers fed by these alone are small, run once a step, and steer everything.
_SETTINGS = {"timestep", "guidance"}


class Kind(enum.StrEnum):
    CONV = "conv"
    LINEAR = "linear"


@dataclass(frozen=True)
class Layer:
    """A node with a constant weight; axes are the weight's."""

    name: str
    kind: Kind
    data: str  # the activation that it reads
    weight: str
    output: str
    output_axis: int  # output channels: one scale each
    input_axis: int


def find_layers(graph: Graph) -> tuple[Layer, ...]:
    """All layers of a graph, in its order."""
    return tuple(layer for node in graph.nodes if (layer := _layer(graph, node)) is not None)


def _layer(graph: Graph, node: NodeProto) -> Layer | None:
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in graph.weights:
        return None
    if node.input[0] in graph.weights:
        return None
    name, data, weight, output = node.name or node.output[0], node.input[0], node.input[1], node.output[0]
    if node.op_type == "Conv":
        return Layer(name, Kind.CONV, data, weight, output, output_axis=0, input_axis=1)
    if len(graph.weights[weight].dims) != 2:
        return None
    settings = {a.name: a for a in node.attribute}
    if "transA" in settings and settings["transA"].i:
        return None
    if any(name in settings and settings[name].f != 1.0 for name in ("alpha", "beta")):
        return None
    transposed = node.op_type == "Gemm" and "transB" in settings and settings["transB"].i
    out_axis = 0 if transposed else 1
    return Layer(name, Kind.LINEAR, data, weight, output, output_axis=out_axis, input_axis=1 - out_axis)


@dataclass(frozen=True)
class _Reach:
    """For each tensor: the graph inputs and the layers (by number) that it depends on."""

    inputs: dict[str, frozenset[str]]
    layers: dict[str, int]  # a bit for each layer


def _reach(graph: Graph, layers: Collection[Layer]) -> _Reach:
    bit = {layer.name: 1 << i for i, layer in enumerate(layers)}
    inputs = {i.name: frozenset([i.name]) for i in graph.model.graph.input}
    masks: dict[str, int] = {}
    for node in graph.nodes:  # in topological order, as ONNX demands
        mask, sources = 0, frozenset[str]()
        for name in node.input:
            mask |= masks.get(name, 0)
            sources |= inputs.get(name, frozenset())
        mask |= bit.get(node.name or node.output[0], 0)
        for out in node.output:
            masks[out], inputs[out] = mask, sources
    return _Reach(inputs, masks)


def left_alone(graph: Graph, layers: tuple[Layer, ...]) -> dict[str, str]:
    """Layer -> why a rule keeps it in higher precision."""
    reach = _reach(graph, layers)
    before = {layer.name: reach.layers.get(layer.data, 0) for layer in layers}
    numbers = {layer.name: i for i, layer in enumerate(layers)}
    convs = [layer for layer in layers if layer.kind is Kind.CONV]
    conv_bits = sum(1 << numbers[c.name] for c in convs)
    followed = _union(before.values())
    found: dict[str, str] = {}
    for layer in layers:
        sources = reach.inputs.get(layer.data, frozenset())
        if not sources:
            # learned queries: engines fold them, and ONNX Runtime 1.32 trips over codes that several layers read
            found[layer.name] = "it reads a constant"
        elif sources <= _SETTINGS:
            found[layer.name] = f"only {' and '.join(sorted(sources))} feeds it"
    for conv in convs:
        if not before[conv.name] & conv_bits:
            found[conv.name] = "first convolution"
            for layer in layers:
                if before[conv.name] >> numbers[layer.name] & 1:
                    found.setdefault(layer.name, "prepares the first convolution's input")
        elif not followed >> numbers[conv.name] & 1:
            found[conv.name] = "last convolution"
    return {layer.name: found[layer.name] for layer in layers if layer.name in found}


def _union(masks: Iterable[int]) -> int:
    found = 0
    for mask in masks:
        found |= mask
    return found


@dataclass(frozen=True)
class ResidualAdd:
    """An addition onto a layer's output, whose other operand is quantised so that both fuse into one kernel."""

    layer: str
    node: str  # the Add
    operand: str  # its other operand


def find_residuals(graph: Graph, layers: Collection[Layer]) -> tuple[ResidualAdd, ...]:
    """Additions after a layer (past its bias). Where both operands come from layers, the later layer is the main one.

    Whether the operand has the layer's shape, or is a broadcast offset, is for the caller: shapes are not known here.
    """
    numbers = {id(node): i for i, node in enumerate(graph.nodes)}
    found: dict[str, tuple[int, ResidualAdd]] = {}
    for layer in layers:
        add = _addition(graph, layer.output)
        if add is None:
            continue
        node, operand = add
        number = numbers[id(graph.producer[layer.output])]
        entry = ResidualAdd(layer.name, node.name or node.output[0], operand)
        if entry.node not in found or found[entry.node][0] < number:
            found[entry.node] = (number, entry)
    return tuple(entry for _, entry in found.values())


def _addition(graph: Graph, tensor: str) -> tuple[NodeProto, str] | None:
    """The Add that alone reads `tensor`, directly or after a bias, and its other operand."""
    readers = graph.consumers.get(tensor, [])
    if len(readers) != 1 or readers[0].op_type != "Add" or tensor in graph.outputs:
        return None
    node = readers[0]
    others = [name for name in node.input if name != tensor]
    if len(others) != 1:
        return None
    if constant_value(graph, others[0]) is not None:
        return _addition(graph, node.output[0])
    return node, others[0]
