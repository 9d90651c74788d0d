"""A plan found on the fp32 graph, applied to its fp16 twin: what TensorRT gets on a Jetson, W8A8 over fp16.

Layers keep their names when a graph is converted to fp16; tensors may come by way of a Cast. So layers are matched by
name, and ranges by the tensor behind the Casts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import onnx_ir as ir

from mgcc_calibration.analysis.sensitivity import (
    LayerError,
    Quality,
    keep_worst,
    layer_errors,
    output_quality,
    signal_to_noise_db,
)
from mgcc_calibration.data.samples import CalibrationData
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.graphs.layers import Layer, find_layers, find_residuals
from mgcc_calibration.quantise.plan import Plan, PlanOptions, make_plan
from mgcc_calibration.quantise.qdq import write_qdq
from mgcc_calibration.quantise.smoothquant import apply_factors
from mgcc_runtime.contract import StageSpec

#: Of the tolerance, what 8 bits may use on the calibration data: rounding the rest to fp16 and other lengths want some,
#: and the second is for stages where they want more.
MARGINS = (0.9, 0.6)
COMPARED = 6  # samples that errors are measured on
#: The first opset whose QuantizeLinear takes fp16; TensorRT 10.3 reads it too.
HALF_OPSET = 19


def transfer(plan: Plan, twin: Graph) -> Plan:
    """The plan for `twin`, a conversion of the graph that the plan was made from before smoothing.

    A layer that is gone from the twin, or reads something else there, is kept in higher precision.
    """
    wanted = {layer.name for layer in plan.layers}
    found = {layer.name: layer for layer in find_layers(twin)}
    tensors = twin.tensors
    sources = {name: _behind_casts(tensors[layer.data]) for name, layer in found.items()}
    factors = {}
    for layer in found.values():
        if sources[layer.name] in plan.smoothed:
            factors[layer.data] = plan.smoothed[sources[layer.name]]
    smoothed, layers = apply_factors(twin, list(found.values()), factors)
    bounds = dict(plan.bounds)
    usable: list[Layer] = []
    for layer in layers:
        source = sources[layer.name]
        # a smoothed activation has another range, under the name that `apply_factors` gave it in the plan's graph
        planned = next((x.data for x in plan.layers if x.name == layer.name), source)
        if layer.name in wanted and planned in plan.bounds:
            bounds[layer.data] = plan.bounds[planned]
            if (bound := plan.bounds.get(layer.output)) is not None:
                bounds[layer.output] = bound
            usable.append(layer)
    residual_nodes = {r.node: r.operand for r in plan.residuals}
    residuals = tuple(r for r in find_residuals(smoothed, usable) if r.node in residual_nodes)
    for residual in residuals:
        bounds[residual.operand] = plan.bounds.get(residual_nodes[residual.node], 0.0)
    lost = wanted - {layer.name for layer in usable}
    kept = {**plan.kept, **dict.fromkeys(sorted(lost), "not the same layer in the converted graph")}
    return replace(
        plan, graph=smoothed, layers=tuple(usable), residuals=residuals, kept=kept,
        bounds={name: bound for name, bound in bounds.items() if bound > 0},
    )  # fmt: skip


def _behind_casts(tensor: ir.Value) -> str:
    node = tensor.producer()
    while node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
        tensor = node.inputs[0]
        node = tensor.producer()
    return str(tensor.name)


def raise_opset(graph: Graph, opset: int) -> Graph:
    """The graph in `opset` or its own later one."""
    if graph.opset >= opset:
        return graph
    from onnxscript import version_converter

    raised = graph.copy()
    version_converter.convert_version(raised.model, opset)
    return raised


def static_quantisers(
    source: Path, spec: StageSpec, data: CalibrationData, limit: float, options: PlanOptions | None = None
) -> tuple[Callable[[Path, Path], str | None], ...]:
    """Functions (fp16 graph in, W8A8 graph over fp16 out) with ranges of the fp32 graph at `source`.

    The first takes all layers; each further one keeps the most sensitive in fp16, so many that the stage's output comes
    within a share (MARGINS) of the relative L2 error `limit` on the calibration data. They return what was kept, in
    words, or None where nothing would be left. The data is checked at once (DataError), ranges are found when first
    asked for.
    """
    data.check(spec)
    layers = _SparedLayers(source, spec, data, options or PlanOptions())

    def quantise(twin: Path, target: Path, margin: float | None) -> str | None:
        plan = layers.plan(None if margin is None else margin * limit)
        plan = transfer(plan, raise_opset(Graph.load(twin), HALF_OPSET))
        if not plan.layers:
            return None
        write_qdq(plan).save(target)
        return _spared(plan, layers.every)

    return tuple(partial(quantise, margin=margin) for margin in (None, *MARGINS))


class _SparedLayers:
    """One stage's plan with all layers, and with fewer for a budget; found when asked for, kept for the next budget."""

    def __init__(self, source: Path, spec: StageSpec, data: CalibrationData, options: PlanOptions) -> None:
        self._source, self._spec, self._samples, self._options = source, spec, partial(data.samples, spec.name), options

    @cached_property
    def whole(self) -> Plan:
        return make_plan(Graph.load(self._source), self._samples, self._options)

    @property
    def every(self) -> int:
        """How many layers any rule lets be quantised."""
        return len(self.whole.layers)

    @cached_property
    def _errors(self) -> list[LayerError]:
        return layer_errors(self.whole, self._spec, self._samples, count=COMPARED)

    @cached_property
    def _quality(self) -> Quality:
        return output_quality(self.whole, self._spec, self._samples, COMPARED)

    def plan(self, error: float | None) -> Plan:
        """The plan within a relative L2 error of the stage's output; with None all layers, whatever they cost."""
        if error is None:
            return self.whole
        return keep_worst(self.whole, self._errors, self._quality, signal_to_noise_db(error)).plan


def _spared(plan: Plan, every: int) -> str:
    kept = every - len(plan.layers)
    if not kept:
        return ""
    return f"8 bits in {len(plan.layers)} of {every} layers: the others would cost most and miss the tolerance"
