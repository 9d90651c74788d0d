"""Write a plan into a graph: QuantizeLinear and DequantizeLinear pairs that TensorRT, OpenVINO and ONNX Runtime fuse.

`onnxruntime.quantization.quantize_static` does much of this, but always ties a range to its own calibrators, offers
neither squared error nor groups of timesteps, and can only quantise both operands of a residual addition. Its
per-channel weights and its rule of one pair a tensor are what is done here too, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from mgcc_calibration.errors import MethodError
from mgcc_calibration.graphs.edit import Array, add_weight, make_node, name_of
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.graphs.layers import Kind, Layer
from mgcc_calibration.quantise.activation_ranges import LEVELS
from mgcc_calibration.quantise.plan import Placement, Plan, weight_scales

LEAST_OPSET = 13  # the first with per-channel DequantizeLinear


def write_qdq(plan: Plan, placement: Placement = Placement.INPUTS) -> Graph:
    """The plan's graph with its layers in int8. The same plan gives the same graph, byte for byte.

    A tensor gets one pair, shared by all that read it quantised; everything else goes on reading the exact one. So
    nothing is converted twice, and norms, softmax and activation functions stay as they were.
    """
    if plan.graph.opset < LEAST_OPSET:
        raise MethodError(
            f"the graph has opset {plan.graph.opset}, expected {LEAST_OPSET} or later for one scale a channel; "
            "export it again"
        )
    graph = plan.graph.copy()
    writer = _Writer(graph, plan)
    by_name = {layer.name: layer for layer in plan.layers}
    for layer in plan.layers:
        writer.quantise_weight(layer)
        writer.redirect(layer.data, [layer.name], writer.type_of(layer), input_index=0)
    for residual in plan.residuals:
        if residual.layer in by_name and residual.operand in plan.bounds:
            writer.redirect(residual.operand, [residual.node], writer.type_of(by_name[residual.layer]))
    if placement is Placement.INPUTS_OUTPUTS:
        for layer in plan.layers:
            if layer.kind is Kind.CONV and layer.output in plan.bounds and layer.output not in graph.outputs:
                writer.redirect(layer.output, writer.readers[layer.output], writer.type_of(layer))
    writer.finish()
    return graph


def _stored(scales: Array, kind: ir.DataType) -> Array:
    """Scales in a layer's own type, never 0."""
    dtype = kind.numpy()
    return np.maximum(scales.astype(dtype), np.finfo(dtype).smallest_subnormal)


class _Writer:
    """Collects new nodes and puts each right behind what makes its input."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph, self.plan, self.tensors = graph, plan, graph.tensors
        self.nodes = {name_of(node): node for node in graph.nodes}
        self.readers = {x.output: [name_of(n) for n in self.tensors[x.output].consumers()] for x in plan.layers}
        self.pairs: dict[str, ir.Value] = {}  # tensor -> its dequantised copy
        self.copies: dict[str, int] = {}  # how many layers have a weight's codes
        self.new: dict[str, list[ir.Node]] = {}  # by the tensor behind whose producer they stand
        self.types = {layer.name: self._type(layer) for layer in plan.layers}

    def _type(self, layer: Layer) -> ir.DataType:
        kind = self.graph.weights[layer.weight].dtype
        assert kind is not None, layer.weight
        return kind

    def type_of(self, layer: Layer) -> ir.DataType:
        """The element type that a layer computes in: that of its weight before."""
        return self.types[layer.name]

    def quantise_weight(self, layer: Layer) -> None:
        """int8 codes with one scale for each output channel, of the layer alone: where two layers have one weight, such
        as the rounds of the grounder, shared codes are what compilers fail on. ONNX Runtime 1.32 does as it makes them
        unsigned, TensorRT-RTX 1.7 as it multiplies several of them at once.
        """
        values, kind = self.graph.weight(layer.weight), self.type_of(layer)
        # codes are made with the scale as it is stored, in fp16 where the layer is
        scales = _stored(weight_scales(values, layer.output_axis, self.plan.codes), kind)
        shape = [1] * values.ndim
        shape[layer.output_axis] = -1
        steps = values.astype(np.float32) / scales.astype(np.float32).reshape(shape)
        codes = np.clip(np.round(steps), -self.plan.codes, self.plan.codes).astype(np.int8)
        copies = self.copies[layer.weight] = self.copies.get(layer.weight, 0) + 1
        name = layer.weight if copies == 1 else f"{layer.weight}_{copies}"
        self.nodes[layer.name].replace_input_with(1, self._dequantised(name, codes, scales, layer.output_axis, kind))

    def _dequantised(self, name: str, codes: Array, scales: Array, axis: int, kind: ir.DataType) -> ir.Value:
        values = {"int8": codes, "scale": scales, "zero": np.zeros(scales.shape, np.int8)}
        weights = [add_weight(self.graph.model.graph, f"{name}_{what}", value) for what, value in values.items()]
        node = make_node("DequantizeLinear", weights, [f"{name}_dequantised"], f"{name}_dq", axis=axis)
        self.new.setdefault("", []).append(node)
        return _declared(node, kind, codes.shape)

    def redirect(self, tensor: str, readers: Iterable[str], kind: ir.DataType, input_index: int | None = None) -> None:
        """Let the nodes `readers` read `tensor` quantised; only at `input_index` if one is given."""
        if tensor not in self.pairs:
            self.pairs[tensor] = self._pair(tensor, kind)
        for node in (self.nodes[reader] for reader in readers):
            places = range(len(node.inputs)) if input_index is None else [input_index]
            for place in places:
                if node.inputs[place] is self.tensors[tensor]:
                    node.replace_input_with(place, self.pairs[tensor])

    def _pair(self, tensor: str, kind: ir.DataType) -> ir.Value:
        step = _stored(np.array(self.plan.bounds[tensor] / LEVELS), kind)
        # scalars: ONNX Runtime 1.23's QLinearAdd refuses a scale of shape (1,)
        ends = [
            add_weight(self.graph.model.graph, f"{tensor}_{what}", value)
            for what, value in (("scale", step), ("zero", np.array(0, np.int8)))
        ]
        codes = make_node("QuantizeLinear", [self.tensors[tensor], *ends], [f"{tensor}_codes"], f"{tensor}_q")
        given = _declared(codes, ir.DataType.INT8)
        back = make_node("DequantizeLinear", [given, *ends], [f"{tensor}_dequantised"], f"{tensor}_dq")
        self.new.setdefault(tensor, []).extend([codes, back])
        return _declared(back, kind)

    def finish(self) -> None:
        """Put the new nodes in: after the producer of their tensor, or at the start for weights and graph inputs."""
        graph = self.graph.model.graph
        first = self.graph.nodes[0]
        for tensor, nodes in self.new.items():
            producer = self.tensors[tensor].producer() if tensor else None
            if producer is None:
                graph.insert_before(first, nodes)
            else:
                graph.insert_after(producer, nodes)
        self.graph.drop_unused_weights()


def _declared(node: ir.Node, kind: ir.DataType, shape: Sequence[int] | None = None) -> ir.Value:
    """A new node's result, its type stated: strongly typed readers of the graph go by it."""
    value = node.outputs[0]
    value.type, value.shape = ir.TensorType(kind), None if shape is None else ir.Shape(shape)
    return value
