"""A plan found on the fp32 graph, applied to its fp16 twin: what TensorRT gets on a Jetson, W8A8 over fp16.

Layers keep their names when a graph is converted to fp16; tensors may come by way of a Cast. So layers are matched by
name, and ranges by the tensor behind the Casts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mgcc_calibration.data import CalibrationData
from mgcc_calibration.graph import Graph
from mgcc_calibration.layers import Layer, find_layers, find_residuals
from mgcc_calibration.plan import Plan, PlanOptions, make_plan
from mgcc_calibration.qdq import write_qdq
from mgcc_calibration.smooth import apply_factors
from mgcc_runtime.contract import StageSpec

#: The first opset whose QuantizeLinear takes fp16; TensorRT 10.3 reads it too.
HALF_OPSET = 19


def transfer(plan: Plan, twin: Graph) -> Plan:
    """The plan for `twin`, a conversion of the graph that the plan was made from before smoothing.

    A layer that is gone from the twin, or reads something else there, is kept in higher precision.
    """
    wanted = {layer.name for layer in plan.layers}
    found = {layer.name: layer for layer in find_layers(twin)}
    sources = {name: _behind_casts(twin, layer.data) for name, layer in found.items()}
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


def _behind_casts(graph: Graph, tensor: str) -> str:
    node = graph.producer.get(tensor)
    while node is not None and node.op_type == "Cast":
        tensor = node.input[0]
        node = graph.producer.get(tensor)
    return tensor


def raise_opset(graph: Graph, opset: int) -> Graph:
    """The graph in `opset` or its own later one."""
    if graph.opset >= opset:
        return graph
    import onnx_ir as ir
    from onnxscript import version_converter

    model = ir.from_proto(graph.model)
    version_converter.convert_version(model, opset)
    return Graph(ir.to_proto(model))


def static_quantiser(
    source: Path, spec: StageSpec, data: CalibrationData, options: PlanOptions | None = None
) -> Callable[[Path, Path], Plan]:
    """A function (fp16 graph in, W8A8 graph over fp16 out) with ranges of the fp32 graph at `source`.

    The data is checked at once (DataError); ranges are found at the first call. The function returns the plan.
    """
    data.check(spec)
    made: list[Plan] = []

    def quantise(twin: Path, target: Path) -> Plan:
        if not made:
            made.append(make_plan(Graph.load(source), lambda: data.samples(spec.name), options or PlanOptions()))
        plan = transfer(made[0], raise_opset(Graph.load(twin), HALF_OPSET))
        write_qdq(plan).save(target)
        return plan

    return quantise
