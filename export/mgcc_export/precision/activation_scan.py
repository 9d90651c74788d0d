"""How large the activations of a graph get: what lies beyond fp16's range is kept in fp32."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from mgcc_calibration.graphs.storage import load_graph, save_graph
from mgcc_export.precision.fp16 import FP16_MAX, precise_nodes
from mgcc_runtime.engines.onnxruntime.cpu import cpu_settings

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


def scan_ranges(source: Path, inputs: Sequence[Feeds], limit: float = FP16_MAX / MARGIN) -> RangeScan:
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


def activation_ranges(source: Path, inputs: Sequence[Feeds]) -> tuple[dict[str, float], int]:
    """Largest finite magnitude of each floating-point value over all `inputs`, by name; and their number.

    The graph itself gives the extremes of each result, so that activations are neither held nor copied: three
    self-attentions over 4,096 positions took 2.4 GB and 2.7 s, with magnitudes taken of a copy 6.0 GB and 8.1 s. Where
    an extreme lies beyond `_MASK`, which masks do on purpose, the inputs are gone through again for those results,
    without what is beyond: the story's language model takes 8 s instead of 6, and 2.8 GB instead of 2.2.
    """
    largest = _fed(inputs)
    extremes = _observe(source, inputs, _add_extremes)
    masked = {name for name, value in extremes.items() if not abs(value) < _MASK}
    largest |= {name: value for name, value in extremes.items() if name not in masked}
    if masked:
        largest |= _observe(source, inputs, lambda model: _add_maxima(model, masked))
    return largest, len(inputs)


#: What is larger masks something out: -3.4e38 or infinity. Conversion clips such a constant to fp16's range.
_MASK = float(np.finfo(np.float32).max / 2)


def _fed(inputs: Sequence[Feeds]) -> dict[str, float]:
    """Largest magnitude of each floating-point input."""
    found: dict[str, float] = {}
    for feeds in inputs:
        for name, feed in feeds.items():
            if feed.dtype == np.float32:
                found[name] = max(found.get(name, 0.0), float(np.abs(feed).max(initial=0.0)))
    return found


def _observe(
    source: Path, inputs: Sequence[Feeds], add_outputs: Callable[[ir.Model], dict[str, str]]
) -> dict[str, float]:
    """Largest magnitude, by result, of the outputs that `add_outputs` gives the graph; it tells whose each is."""
    model = load_graph(source)
    names = add_outputs(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.onnx"
        save_graph(model, path)
        del model
        settings = cpu_settings()
        # the default order leaves the extremes to the end, and with them every activation in memory (25 times as much)
        settings.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        # a scan takes a few runs: weights stay as they are in the file, and are not laid out anew beside it
        settings.add_session_config_entry("session.disable_prepacking", "1")
        session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        largest = dict.fromkeys(names.values(), 0.0)
        for feeds in inputs:
            for output, value in zip(names, session.run(list(names), dict(feeds)), strict=True):
                size = abs(float(value))
                largest[names[output]] = max(largest[names[output]], size) if size == size else math.nan
        del session
    return largest


def _add_extremes(model: ir.Model) -> dict[str, str]:
    """Give the graph two more outputs for each floating-point result: its maximum and minimum. Output -> result."""
    names: dict[str, str] = {}
    for node, value in _results(model):
        for operator in ("ReduceMax", "ReduceMin"):
            found = _reduction(operator, value)
            names[_to_output(model, found, len(names))] = str(value.name)
            model.graph.insert_after(node, [found])
    return names


def _add_maxima(model: ir.Model, wanted: set[str]) -> dict[str, str]:
    """Give the graph one more output for each result in `wanted`: its largest magnitude below `_MASK`."""
    names: dict[str, str] = {}
    low, high = _constant(model.graph, "scan.low", 0.0), _constant(model.graph, "scan.high", _MASK)
    for node, value in _results(model):
        if value.name not in wanted:
            continue
        size = ir.Node("", "Abs", [value], num_outputs=1)
        kept = ir.Node("", "Less", [size.outputs[0], high], num_outputs=1)
        finite = ir.Node("", "Where", [kept.outputs[0], size.outputs[0], low], num_outputs=1)
        peak = _reduction("ReduceMax", finite.outputs[0])
        names[_to_output(model, peak, len(names))] = str(value.name)
        model.graph.insert_after(node, [size, kept, finite, peak])
    return names


def _results(model: ir.Model) -> list[tuple[ir.Node, ir.Value]]:
    """Every named floating-point result with the node that gives it; the graph's own outputs are taken off."""
    model.graph.outputs.clear()
    return [
        (node, value)
        for node in model.graph
        for value in node.outputs
        if value.dtype is ir.DataType.FLOAT and value.name is not None
    ]


def _reduction(operator: str, value: ir.Value) -> ir.Node:
    return ir.Node("", operator, [value], [ir.AttrInt64("keepdims", 0)], num_outputs=1)


def _to_output(model: ir.Model, node: ir.Node, number: int) -> str:
    result = node.outputs[0]
    result.name, result.shape, result.type = (
        f"scan.{number}", ir.Shape([]), ir.TensorType(ir.DataType.FLOAT),
    )  # fmt: skip
    model.graph.outputs.append(result)
    return result.name


def _constant(graph: ir.Graph, name: str, value: float) -> ir.Value:
    tensor = ir.tensor(np.float32(value), name=name)
    constant = ir.Value(name=name, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    graph.initializers[name] = constant
    return constant
