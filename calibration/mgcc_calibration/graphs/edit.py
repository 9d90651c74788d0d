"""What graphs are asked and how they are changed, in onnx_ir's own terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]


def name_of(node: ir.Node) -> str:
    """A node's name; that of its first result where it has none."""
    return str(node.name or node.outputs[0].name)


def is_weight(value: ir.Value | None) -> bool:
    """Whether an input of a node is there, and a weight of the graph."""
    return value is not None and value.is_initializer()


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """What a weight or a node Constant holds; None for what is absent or depends on the inputs."""
    return None if value is None else ir.convenience.get_const_tensor(value)


def add_weight(graph: ir.Graph, name: str, values: Array) -> ir.Value:
    """A new weight, last of all; a scalar stays one."""
    tensor = ir.tensor(np.asarray(values, order="C"), name=name)
    weight = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(weight)
    return weight


def make_node(
    operator: str, inputs: Sequence[ir.Value | None], outputs: Sequence[str], name: str = "", domain: str = "",
    **attributes: int | float | Sequence[int],
) -> ir.Node:  # fmt: skip
    """A node that gives results of these names."""
    made = [ir.Value(name=output) for output in outputs]
    return ir.node(operator, inputs, attributes, domain=domain, name=name, outputs=made)


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Give the readers of a value another one, also where it is an output of the graph; its producer stays."""
    if old.is_graph_output():
        new.type, new.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def replace_node(graph: ir.Graph, old: ir.Node, new: Sequence[ir.Node]) -> None:
    """Put nodes in the place of one; the last of them gives what it gave, under the same names."""
    ir.convenience.replace_nodes_and_values(graph, old, [old], new, old.outputs, new[-1].outputs)


def drop_unused_weights(graph: ir.Graph) -> None:
    """Take out the weights that no node reads and that are no output."""
    for name, weight in list(graph.initializers.items()):
        if not weight.uses() and not weight.is_graph_output():
            del graph.initializers[name]
