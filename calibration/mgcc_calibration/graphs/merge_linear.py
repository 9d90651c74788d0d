"""Linear layers that read the same tensor become one, their weights side by side: fewer and larger products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from mgcc_calibration.graphs.edit import Array, add_weight, constant, is_weight, make_node, name_of, replace_value
from mgcc_calibration.graphs.graph import Graph


def is_linear(node: ir.Node | None) -> bool:
    """Whether the node is a linear layer without a bias, its weights plain or packed."""
    if node is None or node.op_type != "MatMul":
        return node is not None and node.op_type == "MatMulNBits"
    return is_weight(node.inputs[1]) and not is_weight(node.inputs[0])


def linear_width(node: ir.Node) -> int:
    """How many outputs a linear layer has."""
    if node.op_type == "MatMul":
        return int(_values(node, 1).shape[1])
    return int(node.attributes["N"].value)


def merge_linear(graph: Graph) -> None:
    """Merge the three projections of every GroupQueryAttention, which takes them packed.

    Only layers of one form are merged: plain weights, or weights of the same bits and blocks.
    """
    for node in graph.nodes:
        if node.op_type != "GroupQueryAttention" or node.inputs[1] is None:
            continue
        layers = [value.producer() for value in node.inputs[:3] if value is not None]
        if found := _one_form(layers):
            packed = _merge(graph, found)
            for place, value in enumerate((packed.outputs[0], None, None)):
                node.replace_input_with(place, value)
            _put(graph, found, [packed])
    graph.drop_unused_weights()


def merge_gates(graph: Graph) -> None:
    """Merge the gate with the projection beside it, whose product they are, and split what comes out."""
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    for sigmoid in [node for node in numbers if node.op_type == "Sigmoid"]:
        gate = sigmoid.inputs[0].producer() if sigmoid.inputs[0] is not None else None
        if gate is None or not is_linear(gate) or gate.inputs[0] is None:
            continue
        readers = sorted(filter(is_linear, gate.inputs[0].consumers()), key=numbers.__getitem__)
        layers = _one_form(readers)
        if len(layers) == 2:
            packed = _merge(graph, layers)
            widths = np.array([linear_width(node) for node in layers], np.int64)
            ends = add_weight(graph.model.graph, f"{packed.outputs[0].name}_widths", widths)
            names = [str(node.outputs[0].name) for node in layers]
            split = make_node("Split", [packed.outputs[0], ends], names, axis=-1)
            for node, part in zip(layers, split.outputs, strict=True):
                replace_value(node.outputs[0], part)
            _put(graph, layers, [packed, split])
    graph.drop_unused_weights()


def _one_form(layers: Sequence[ir.Node | None]) -> list[ir.Node]:
    """The layers, if they are linear and of one form; else none."""
    linear = [node for node in layers if node is not None and is_linear(node) and len(node.inputs) <= 3]
    forms = {(node.op_type, node.inputs[0], *_form(node)) for node in linear}
    return linear if len(linear) == len(layers) and len(forms) == 1 else []


def _form(node: ir.Node) -> list[tuple[str, int]]:
    return sorted((name, value) for name, value in _attributes(node).items() if name != "N")


def _attributes(node: ir.Node) -> dict[str, int]:
    return {name: int(attribute.value) for name, attribute in node.attributes.items()}


def _values(node: ir.Node, place: int) -> Array:
    tensor = constant(node.inputs[place])
    assert tensor is not None, node.name
    return tensor.numpy()


def _merge(graph: Graph, layers: list[ir.Node]) -> ir.Node:
    """One layer with the outputs of all, in their order."""
    name, first = "+".join(map(name_of, layers)), layers[0]
    plain = first.op_type == "MatMul"
    inputs = [first.inputs[0]]
    for place in range(1, len(first.inputs)):
        joined = np.concatenate([_values(node, place) for node in layers], axis=1 if plain else 0)
        inputs.append(add_weight(graph.model.graph, f"{name}_{place}", joined))
    settings = {} if plain else {**_attributes(first), "N": sum(map(linear_width, layers))}
    return make_node(first.op_type, inputs, [f"{name}_out"], name, first.domain, **settings)


def _put(graph: Graph, old: list[ir.Node], new: list[ir.Node]) -> None:
    """`new` in the place of the first of `old`."""
    graph.model.graph.insert_before(next(node for node in graph.model.graph if node in old), new)
    graph.model.graph.remove(old, safe=True)
