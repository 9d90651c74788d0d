"""Write a plan into a graph: QuantizeLinear and DequantizeLinear pairs that TensorRT, OpenVINO and ONNX Runtime fuse.

`onnxruntime.quantization.quantize_static` does much of this, but always ties a range to its own calibrators, offers
neither squared error nor groups of timesteps, and can only quantise both operands of a residual addition. Its
per-channel weights and its rule of one pair a tensor are what is done here too, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mgcc_calibration.errors import MethodError
from mgcc_calibration.graph import Graph
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
    names = {layer.name for layer in plan.layers}
    for layer in plan.layers:
        writer.quantise_weight(layer)
        writer.redirect(layer.data, [layer.name], input_index=0)
    for residual in plan.residuals:
        if residual.layer in names and residual.operand in plan.bounds:
            writer.redirect(residual.operand, [residual.node])
    if placement is Placement.INPUTS_OUTPUTS:
        for layer in plan.layers:
            if layer.kind is Kind.CONV and layer.output in plan.bounds and layer.output not in graph.outputs:
                readers = graph.consumers.get(layer.output, [])
                writer.redirect(layer.output, [_name(node) for node in readers])
    writer.finish()
    return graph


def _name(node: NodeProto) -> str:
    return node.name or node.output[0]


class _Writer:
    """Collects new nodes and puts each right behind what makes its input."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph, self.plan = graph, plan
        self.nodes = {_name(node): node for node in graph.nodes}
        self.pairs: dict[str, str] = {}  # tensor -> its dequantised copy
        self.weights: dict[str, str] = {}
        self.new: dict[str, list[NodeProto]] = {}  # by the tensor behind whose producer they stand
        self.float_type: int = TensorProto.FLOAT
        if plan.layers:
            self.float_type = graph.weights[plan.layers[0].weight].data_type

    def quantise_weight(self, layer: Layer) -> None:
        """int8 codes with one scale for each output channel."""
        node = self.nodes[layer.name]
        if layer.weight not in self.weights:
            values = self.graph.weight(layer.weight)
            scales = weight_scales(values, layer.output_axis, LEVELS)
            shape = [1] * values.ndim
            shape[layer.output_axis] = -1
            codes = np.clip(np.round(values.astype(np.float32) / scales.reshape(shape)), -LEVELS, LEVELS)
            self.weights[layer.weight] = self._dequantised(
                layer.weight, codes.astype(np.int8), scales, layer.output_axis
            )
        node.input[1] = self.weights[layer.weight]

    def _dequantised(self, weight: str, codes: np.ndarray, scales: np.ndarray, axis: int) -> str:
        names = [f"{weight}_int8", f"{weight}_scale", f"{weight}_zero"]
        self._constants(names, codes, scales, np.zeros(scales.shape, np.int8))
        out = f"{weight}_dequantised"
        node = helper.make_node("DequantizeLinear", names, [out], name=f"{weight}_dq", axis=axis)
        self.new.setdefault("", []).append(node)
        return out

    def _constants(self, names: Iterable[str], codes: np.ndarray | None, scales: np.ndarray, zero: np.ndarray) -> None:
        kind = helper.tensor_dtype_to_np_dtype(self.float_type)
        values = [codes] if codes is not None else []
        for name, value in zip(names, [*values, scales.astype(kind), zero], strict=True):
            self.graph.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))

    def redirect(self, tensor: str, readers: Iterable[str], input_index: int | None = None) -> None:
        """Let the nodes `readers` read `tensor` quantised; only at `input_index` if one is given."""
        if tensor not in self.pairs:
            self.pairs[tensor] = self._pair(tensor)
        for reader in readers:
            inputs = self.nodes[reader].input
            places = range(len(inputs)) if input_index is None else [input_index]
            for place in places:
                if inputs[place] == tensor:
                    inputs[place] = self.pairs[tensor]

    def _pair(self, tensor: str) -> str:
        scale, zero = f"{tensor}_scale", f"{tensor}_zero"
        self._constants([scale, zero], None, np.array(self.plan.bounds[tensor] / LEVELS), np.array(0, np.int8))
        codes, out = f"{tensor}_codes", f"{tensor}_dequantised"
        self.new.setdefault(tensor, []).extend(
            [
                helper.make_node("QuantizeLinear", [tensor, scale, zero], [codes], name=f"{tensor}_q"),
                helper.make_node("DequantizeLinear", [codes, scale, zero], [out], name=f"{tensor}_dq"),
            ]
        )
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
