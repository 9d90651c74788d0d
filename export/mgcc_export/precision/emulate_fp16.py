"""An fp16 graph as a CPU can check it: in fp32, with every fp16 result rounded to fp16 on the spot.

ONNX Runtime has few fp16 kernels for the CPU. It runs the others in fp32 and drops the Casts between them, so that an
overflow that a GPU would meet never shows. Here it shows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from mgcc_calibration.graphs.storage import load_graph, save_graph

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def write_emulated(source: Path, target: Path) -> None:
    """Write the strongly typed graph of `source` so that each fp16 result is rounded; inputs and outputs keep their
    types. Sums inside an operator stay fp32, as tensor cores have them."""
    model = load_graph(source)
    graph = model.graph
    outputs = list(graph.outputs)
    for value in graph.inputs:
        if value.dtype is _HALF:
            _widen(graph, value)
    for value in list(graph.initializers.values()):
        if value.dtype is _HALF:
            _widen_weight(value)
    for node in list(graph):
        for value in node.outputs:
            if value.dtype is _HALF:
                _round(graph, node, value, keep=value in outputs)
    save_graph(model, target)


def _widen(graph: ir.Graph, value: ir.Value) -> None:
    """Readers of an fp16 input read its fp32 copy."""
    readers = list(value.uses())
    cast = _cast(value, _FLOAT, f"{value.name}.wide")
    for node, place in readers:
        node.replace_input_with(place, cast.outputs[0])
    graph.insert_before(graph[0], cast)


def _widen_weight(value: ir.Value) -> None:
    tensor, name = value.const_value, value.name
    assert tensor is not None and name is not None
    shape = ir.Shape(tensor.shape.numpy())
    value.const_value = ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy().astype(np.float32), name=name), _FLOAT, shape, name=name
    )
    value.type = ir.TensorType(_FLOAT)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value, *, keep: bool) -> None:
    """The node gives fp32; a Cast rounds it, and readers get the rounded value widened again."""
    readers, name = list(value.uses()), value.name
    if node.op_type == "Cast":
        narrow = node
    else:
        value.type, value.name = ir.TensorType(_FLOAT), f"{name}.exact"
        narrow = _cast(value, _HALF, f"{name}.rounded")
        graph.insert_after(node, narrow)
    wide = _cast(narrow.outputs[0], _FLOAT, f"{name}.wide")
    graph.insert_after(narrow, wide)
    for reader, place in readers:
        reader.replace_input_with(place, wide.outputs[0])
    if keep and narrow is not node:
        narrow.outputs[0].name = name
        graph.outputs[graph.outputs.index(value)] = narrow.outputs[0]


def _cast(value: ir.Value, kind: ir.DataType, name: str) -> ir.Node:
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", kind)], num_outputs=1)
    result = cast.outputs[0]
    result.name, result.shape, result.type = name, value.shape, ir.TensorType(kind)
    return cast
