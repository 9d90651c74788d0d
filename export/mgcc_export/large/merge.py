"""The segments of a language model put together into the one graph that its contract declares.

Weights stay in the segments' own files, mapped into memory, and go straight from there into the file of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from mgcc_calibration.graphs.storage import load_graph, save_graph
from mgcc_export.errors import ExportError
from mgcc_runtime.contract import StageSpec


def merge_segments(paths: Sequence[Path], spec: StageSpec, target: Path) -> tuple[int, int]:
    """Write the graph of `spec` to `target`, its weights beside it; returns the numbers of nodes and weight bytes.

    A segment's input is the result of that name of a segment before it, or the stage's own. ExportError if there is
    neither, or if two segments disagree on a type.
    """
    given: dict[str, ir.Value] = {}  # the stage's inputs, then what each segment adds
    nodes: list[ir.Node] = []
    weights: list[ir.Value] = []
    opsets: dict[str, int] = {}
    own = {t.name for t in spec.inputs}
    for path in paths:
        graph = load_graph(path).graph
        if opsets and opsets != graph.opset_imports:
            raise ExportError(f"{path.name} has the opsets {graph.opset_imports}, expected {opsets}; build it again")
        opsets = dict(graph.opset_imports)
        _rename_inner(graph, path.stem.split(".")[-1])
        results = list(graph.outputs)
        for value in list(graph.inputs):
            assert value.name is not None
            if value.name not in given and value.name in own:
                given[value.name] = value
            _connect(path, value, given.get(value.name))
        given |= {v.name: v for v in results if v.name is not None}
        inner, held = list(graph), list(graph.initializers.values())
        for ends in (graph.inputs, graph.outputs, graph.initializers):
            ends.clear()
        graph.remove(inner)
        nodes += inner
        weights += held
    ends_in, ends_out = ([given[t.name] for t in tensors] for tensors in (spec.inputs, spec.outputs))
    whole = ir.Graph(ends_in, ends_out, nodes=nodes, initializers=weights, opset_imports=opsets, name=spec.name)
    save_graph(ir.Model(whole, ir_version=10), target, external_data_bytes=0)
    return len(whole), sum(w.const_value.nbytes for w in weights if w.const_value is not None)


def _connect(path: Path, value: ir.Value, source: ir.Value | None) -> None:
    """Have the readers of a segment's input read what gives it."""
    if source is None:
        raise ExportError(f"{path.name} reads {value.name}, which no segment before it gives; build it again")
    if source is value:
        return
    if source.dtype is not value.dtype:
        raise ExportError(f"{path.name} reads {value.name} as {value.dtype}, but it is {source.dtype}; build it again")
    ir.convenience.replace_all_uses_with(value, source)


def _rename_inner(graph: ir.Graph, prefix: str) -> None:
    """Names that no other segment has, for all but the values that pass between segments."""
    outer = {*graph.inputs, *graph.outputs}
    for value in list(graph.initializers.values()):
        value.name = f"{prefix}.{value.name}"
    for node in graph:
        node.name = f"{prefix}.{node.name}"
        for value in node.outputs:
            if value not in outer:
                value.name = f"{prefix}.{value.name}"
