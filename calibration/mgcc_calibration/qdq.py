"""Write a plan into a graph: QuantizeLinear and DequantizeLinear pairs that TensorRT, OpenVINO and ONNX Runtime fuse.

`onnxruntime.quantization.quantize_static` does much of this, but always ties a range to its own calibrators, offers
neither squared error nor groups of timesteps, and can only quantise both operands of a residual addition. Its
per-channel weights and its rule of one pair a tensor are what is done here too, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mgcc_calibration.errors import MethodError
from mgcc_calibration.graph import Array, Graph
from mgcc_calibration.layers import Kind, Layer
from mgcc_calibration.plan import Placement, Plan, weight_scales
from mgcc_calibration.ranges import LEVELS

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
                readers = graph.consumers.get(layer.output, [])
                writer.redirect(layer.output, [_name(node) for node in readers], writer.type_of(layer))
    writer.finish()
    return graph


def _name(node: NodeProto) -> str:
    return node.name or node.output[0]


def _stored(scales: Array, kind: int) -> Array:
    """Scales in a layer's own type, never 0."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return np.maximum(scales.astype(dtype), np.finfo(dtype).smallest_subnormal)


class _Writer:
    """Collects new nodes and puts each right behind what makes its input."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph, self.plan = graph, plan
        self.nodes = {_name(node): node for node in graph.nodes}
        self.pairs: dict[str, str] = {}  # tensor -> its dequantised copy
        self.copies: dict[str, int] = {}  # how many layers have a weight's codes
        self.new: dict[str, list[NodeProto]] = {}  # by the tensor behind whose producer they stand
        self.types = {layer.name: graph.weights[layer.weight].data_type for layer in plan.layers}

    def type_of(self, layer: Layer) -> int:
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
        self.nodes[layer.name].input[1] = self._dequantised(name, codes, scales, layer.output_axis, kind)

    def _dequantised(self, name: str, codes: Array, scales: Array, axis: int, kind: int) -> str:
        names = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
        self._constants(dict(zip(names, (codes, scales, np.zeros(scales.shape, np.int8)), strict=True)))
        out = f"{name}_dequantised"
        node = helper.make_node("DequantizeLinear", names, [out], name=f"{name}_dq", axis=axis)
        self.new.setdefault("", []).append(node)
        self._declare(out, kind, codes.shape)
        return out

    def _constants(self, values: Mapping[str, Array]) -> None:
        # not ascontiguousarray, which makes a scalar's shape (1,): ONNX Runtime 1.23's QLinearAdd refuses such a scale
        for name, value in values.items():
            self.graph.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))

    def _declare(self, tensor: str, kind: int, shape: Sequence[int] | None = None) -> None:
        """State a new tensor's type, which strongly typed readers of the graph go by."""
        self.graph.model.graph.value_info.append(helper.make_tensor_value_info(tensor, kind, shape))

    def redirect(self, tensor: str, readers: Iterable[str], kind: int, input_index: int | None = None) -> None:
        """Let the nodes `readers` read `tensor` quantised; only at `input_index` if one is given."""
        if tensor not in self.pairs:
            self.pairs[tensor] = self._pair(tensor, kind)
        for reader in readers:
            inputs = self.nodes[reader].input
            places = range(len(inputs)) if input_index is None else [input_index]
            for place in places:
                if inputs[place] == tensor:
                    inputs[place] = self.pairs[tensor]

    def _pair(self, tensor: str, kind: int) -> str:
        scale, zero = f"{tensor}_scale", f"{tensor}_zero"
        step = _stored(np.array(self.plan.bounds[tensor] / LEVELS), kind)
        self._constants({scale: step, zero: np.array(0, np.int8)})
        codes, out = f"{tensor}_codes", f"{tensor}_dequantised"
        self.new.setdefault(tensor, []).extend(
            [
                helper.make_node("QuantizeLinear", [tensor, scale, zero], [codes], name=f"{tensor}_q"),
                helper.make_node("DequantizeLinear", [codes, scale, zero], [out], name=f"{tensor}_dq"),
            ]
        )
        self._declare(codes, TensorProto.INT8)
        self._declare(out, kind)
        return out

    def finish(self) -> None:
        """Put the new nodes in: after the producer of their tensor, or at the start for weights and graph inputs."""
        made = {out for node in self.graph.nodes for out in node.output}
        ordered = [node for tensor, nodes in self.new.items() if tensor not in made for node in nodes]
        for node in self.graph.nodes:
            ordered.append(node)
            for out in node.output:
                ordered += self.new.get(out, [])
        copies = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del self.graph.model.graph.node[:]
        self.graph.model.graph.node.extend(copies)
        self.graph.refresh()
        self.graph.drop_unused_weights()
