"""Which nodes of a graph can be quantised, and which of those a rule leaves alone.

A layer is a Conv, Gemm or MatMul with a constant weight. Everything else, norms, softmax, attention's own
products and activation functions, stays as it is: none of it holds weights, and all of it is sensitive.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from mgcc_calibration.graphs.edit import constant, is_weight, name_of
from mgcc_calibration.graphs.graph import Graph

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
    return tuple(layer for node in graph.nodes if (layer := _layer(node)) is not None)


def _layer(node: ir.Node) -> Layer | None:
    if node.op_type not in ("Conv", "Gemm", "MatMul") or not is_weight(node.inputs[1]) or is_weight(node.inputs[0]):
        return None
    name, weight = name_of(node), node.inputs[1]
    data, held, output = (str(value.name) for value in (node.inputs[0], weight, node.outputs[0]) if value is not None)
    if node.op_type == "Conv":
        return Layer(name, Kind.CONV, data, held, output, output_axis=0, input_axis=1)
    settings = {"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0, **{n: a.value for n, a in node.attributes.items()}}
    if weight is None or weight.shape is None or len(weight.shape) != 2:
        return None
    if settings["transA"] or not settings["alpha"] == settings["beta"] == 1.0:
        return None
    out_axis = 0 if settings["transB"] else 1
    return Layer(name, Kind.LINEAR, data, held, output, output_axis=out_axis, input_axis=1 - out_axis)


@dataclass(frozen=True)
class _Reach:
    """For each tensor: the graph inputs and the layers (by number) that it depends on."""

    inputs: dict[str, frozenset[str]]
    layers: dict[str, int]  # a bit for each layer


def _reach(graph: Graph, layers: Collection[Layer]) -> _Reach:
    bit = {layer.name: 1 << i for i, layer in enumerate(layers)}
    inputs = {str(i.name): frozenset([str(i.name)]) for i in graph.model.graph.inputs}
    masks: dict[str, int] = {}
    for node in graph.nodes:
        mask, sources = 0, frozenset[str]()
        for name in (str(value.name) for value in node.inputs if value is not None):
            mask |= masks.get(name, 0)
            sources |= inputs.get(name, frozenset())
        mask |= bit.get(name_of(node), 0)
        for out in node.outputs:
            masks[str(out.name)], inputs[str(out.name)] = mask, sources
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
    numbers, tensors = {name_of(node): i for i, node in enumerate(graph.nodes)}, graph.tensors
    found: dict[str, tuple[int, ResidualAdd]] = {}
    for layer in layers:
        add = _addition(tensors[layer.output])
        if add is None:
            continue
        node, operand = add
        number = numbers[layer.name]
        entry = ResidualAdd(layer.name, name_of(node), operand)
        if entry.node not in found or found[entry.node][0] < number:
            found[entry.node] = (number, entry)
    return tuple(entry for _, entry in found.values())


def _addition(tensor: ir.Value) -> tuple[ir.Node, str] | None:
    """The Add that alone reads `tensor`, directly or after a bias, and its other operand."""
    readers = tensor.consumers()
    if len(readers) != 1 or readers[0].op_type != "Add" or tensor.is_graph_output():
        return None
    node = readers[0]
    others = [value for value in node.inputs if value is not tensor]
    if len(others) != 1 or others[0] is None:
        return None
    if constant(others[0]) is not None:
        return _addition(node.outputs[0])
    return node, str(others[0].name)
