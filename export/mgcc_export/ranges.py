"""How large the activations of a graph get: what lies beyond fp16's range is kept in fp32."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from mgcc_export.fp16 import FP16_MAX, precise_nodes
from mgcc_export.graph_files import load_graph, save_graph

#: The inputs of a scan are a sample: what comes within this factor of the range counts as beyond it. SmolLM2's
#: residual stream reaches 24,926 at its first position from the twelfth block on, so it stays in fp32 from there.
MARGIN = 4.0
_VIEWS = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Expand", "Identity", "Flatten"}

Feeds = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Excess:
    """A node that fp16 is too narrow for, and the largest magnitude seen at its results or inputs."""

    node: str
    operator: str
    largest: float


@dataclass(frozen=True)
class RangeScan:
    """What a scan of a stage saw."""

    runs: int
    limit: float
    outputs: Mapping[str, float]  # largest magnitude of each input and output of the graph
    largest: float  # over all activations, those kept in fp32 by rule included
    largest_value: str
    excesses: tuple[Excess, ...]  # nodes that fp16 would have run

    @property
    def keep(self) -> tuple[str, ...]:
        """Names of the nodes that have to stay in fp32."""
        return tuple(e.node for e in self.excesses)

    def largest_of(self, name: str) -> float:
        """Largest magnitude of an input or output of the graph; 0 where it was empty."""
        return self.outputs.get(name, 0.0)


def scan_ranges(source: Path, inputs: Iterable[Feeds], limit: float = FP16_MAX / MARGIN) -> RangeScan:
    """Run the fp32 graph of `source` on each of `inputs` and find the nodes that meet magnitudes above `limit`."""
    largest, runs = activation_ranges(source, inputs)
    model = load_graph(source)
    ruled = precise_nodes(model.graph)
    excesses = []
    for node in model.graph:
        seen = [largest[v.name] for v in (*node.outputs, *node.inputs) if v is not None and v.name in largest]
        own = [largest[v.name] for v in node.outputs if v.name in largest]
        if not seen or not own:
            continue
        # a node that only makes values smaller (a norm after a large sum) still has to read them
        peak = max(own) if node.op_type in _VIEWS else max(seen)
        if (peak > limit or math.isnan(peak)) and node not in ruled and node.name:
            excesses.append(Excess(node.name, node.op_type, peak))
    name = max(largest, key=lambda n: largest[n], default="")
    ends = {v.name: largest.get(v.name, 0.0) for v in (*model.graph.inputs, *model.graph.outputs) if v.name}
    return RangeScan(runs, limit, ends, largest.get(name, 0.0), name, tuple(excesses))


def activation_ranges(source: Path, inputs: Iterable[Feeds]) -> tuple[dict[str, float], int]:
    """Largest finite magnitude of each floating-point value over all `inputs`, by name; and their number.

    Each result gets a maximum inside the graph, so the activations themselves are never held.
    """
    model = load_graph(source)
    names = _add_maxima(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.onnx"
        save_graph(model, path)
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        # the default order leaves the maxima to the end, and with them every activation in memory (25 times as much)
        settings.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        largest = dict.fromkeys(names, 0.0)
        runs = 0
        for feeds in inputs:
            runs += 1
            for name, feed in feeds.items():
                if feed.dtype == np.float32:
                    largest[name] = max(largest.get(name, 0.0), float(np.abs(feed).max(initial=0.0)))
            found = session.run(list(names.values()), dict(feeds))
            for name, value in zip(names, found, strict=True):
                largest[name] = max(largest[name], float(value))
        del session
    return largest, runs


def _add_maxima(model: ir.Model) -> dict[str, str]:
    """Give the graph one more output for each floating-point result: its largest magnitude. Result -> output's name."""
    graph = model.graph
    graph.outputs.clear()
    names: dict[str, str] = {}
    low, high = _constant(graph, "scan.low", 0.0), _constant(graph, "scan.high", float(np.finfo(np.float32).max / 2))
    for node in list(graph):
        for value in node.outputs:
            if value.dtype is not ir.DataType.FLOAT or value.name is None:
                continue
            size = ir.Node("", "Abs", [value], num_outputs=1)
            # a mask is -3.4e38 or infinite on purpose; its constant is clipped by the conversion
            kept = ir.Node("", "Less", [size.outputs[0], high], num_outputs=1)
            finite = ir.Node("", "Where", [kept.outputs[0], size.outputs[0], low], num_outputs=1)
            peak = ir.Node("", "ReduceMax", [finite.outputs[0]], [ir.AttrInt64("keepdims", 0)], num_outputs=1)
            result = peak.outputs[0]
            result.name, result.shape, result.type = (
                f"scan.{len(names)}", ir.Shape([]), ir.TensorType(ir.DataType.FLOAT),
            )  # fmt: skip
            graph.insert_after(node, [size, kept, finite, peak])
            graph.outputs.append(result)
            names[value.name] = result.name
    return names


def _constant(graph: ir.Graph, name: str, value: float) -> ir.Value:
    tensor = ir.tensor(np.float32(value), name=name)
    constant = ir.Value(name=name, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    graph.initializers[name] = constant
    return constant
