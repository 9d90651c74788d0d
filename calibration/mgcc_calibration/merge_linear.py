"""Linear layers that read the same tensor become one, their weights side by side: fewer and larger products."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from mgcc_calibration.graph import Array, Graph


def is_linear(graph: Graph, node: NodeProto) -> bool:
    """Whether the node is a linear layer without a bias, its weights plain or packed."""
    return node.op_type == "MatMulNBits" or (
        node.op_type == "MatMul" and node.input[1] in graph.weights and node.input[0] not in graph.weights
    )


def linear_width(graph: Graph, node: NodeProto) -> int:
    """How many outputs a linear layer has."""
    if node.op_type == "MatMul":
        return int(graph.weights[node.input[1]].dims[1])
    return int(_attributes(node)["N"])


def merge_linear(graph: Graph) -> None:
    """Merge the three projections of every GroupQueryAttention, which takes them packed.

    Only layers of one form are merged: plain weights, or weights of the same bits and blocks.
    """
    for name in [n.name for n in graph.nodes if n.op_type == "GroupQueryAttention" and n.input[1]]:
        node = next(n for n in graph.nodes if n.name == name)  # a merge replaces all nodes
        layers = [graph.producer[name] for name in node.input[:3]]
        if _one_form(graph, layers):
            packed = _merge(graph, layers)
            node.input[0], node.input[1], node.input[2] = packed.output[0], "", ""
            _put(graph, layers, [packed])
    graph.drop_unused_weights()


def merge_gates(graph: Graph) -> None:
    """Merge the gate with the projection beside it, whose product they are, and split what comes out."""
    for gate_output in [n.input[0] for n in graph.nodes if n.op_type == "Sigmoid"]:
        gate = graph.producer[gate_output]
        if not is_linear(graph, gate):
            continue
        layers = [n for n in graph.consumers[gate.input[0]] if is_linear(graph, n)]
        if len(layers) == 2 and _one_form(graph, layers):
            packed = _merge(graph, layers)
            widths = np.array([linear_width(graph, n) for n in layers], np.int64)
            name = f"{packed.output[0]}_widths"
            graph.model.graph.initializer.append(numpy_helper.from_array(widths, name))
            split = helper.make_node("Split", [packed.output[0], name], [n.output[0] for n in layers], axis=-1)
            _put(graph, layers, [packed, split])
    graph.drop_unused_weights()


def _one_form(graph: Graph, layers: list[NodeProto]) -> bool:
    forms = {(n.op_type, n.input[0], *_form(n)) for n in layers}
    return len(forms) == 1 and all(is_linear(graph, n) and len(n.input) <= 3 for n in layers)


def _form(node: NodeProto) -> list[tuple[str, int]]:
    return sorted((name, value) for name, value in _attributes(node).items() if name != "N")


def _attributes(node: NodeProto) -> dict[str, int]:
    return {a.name: int(a.i) for a in node.attribute}


def _merge(graph: Graph, layers: list[NodeProto]) -> NodeProto:
    """One layer with the outputs of all, in their order."""
    name = "+".join(n.name or n.output[0] for n in layers)
    plain = layers[0].op_type == "MatMul"
    names = []
    for place in range(1, len(layers[0].input)):
        parts: list[Array] = [graph.weight(n.input[place]) for n in layers]
        names.append(f"{name}_{place}")
        joined = np.concatenate(parts, axis=1 if plain else 0)
        graph.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(joined), names[-1]))
    node = helper.make_node(
        layers[0].op_type, [layers[0].input[0], *names], [f"{name}_out"], name=name, domain=layers[0].domain
    )
    if not plain:
        settings = {**_attributes(layers[0]), "N": sum(linear_width(graph, n) for n in layers)}
        node.attribute.extend(helper.make_attribute(key, value) for key, value in settings.items())
    return node


def _put(graph: Graph, old: list[NodeProto], new: list[NodeProto]) -> None:
    """`new` in the place of the first of `old`."""
    gone = {n.output[0] for n in old}
    place = next(i for i, n in enumerate(graph.nodes) if n.output[0] in gone)
    before, after = graph.nodes[:place], graph.nodes[place:]
    graph.replace_nodes([*before, *new, *(n for n in after if n.output[0] not in gone)])
