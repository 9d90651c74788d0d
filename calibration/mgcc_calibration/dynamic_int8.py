"""int8 weights by output channel, activations in 8 bits with the range of the moment, for a fused language model.

Such a range is of all positions together. A few layers meet single values hundreds of times as large as the rest (the
first position's, above all), and would round everything else away: these keep 8-bit weights by blocks, whose kernel
takes a range for each block of each position.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from mgcc_calibration.block_offsets import pack_eight_bits
from mgcc_calibration.graph import Graph
from mgcc_calibration.layers import Kind, Layer, find_layers
from mgcc_calibration.observe import Limits
from mgcc_calibration.smooth import Factors, input_first
from mgcc_calibration.weight_only import DOMAIN, head_layers


def write_dynamic_int8(graph: Graph, spared: Collection[str]) -> Graph:
    """Every linear layer in int8, those that read a tensor of `spared` or give the logits in 8 bits by blocks."""
    packed, heads = graph.copy(), head_layers(graph)
    layers = [layer for layer in find_layers(graph) if layer.kind is Kind.LINEAR]
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.data in spared or layer.name in heads:
            pack_eight_bits(packed, layer, input_first(graph, layer))
        else:
            readers.setdefault(layer.data, []).append(layer)
    made: dict[str, list[NodeProto]] = {}
    for data, group in readers.items():
        for layer in group:
            made[layer.name] = _int8_nodes(packed, graph, layer, data, first=layer is group[0], alone=len(group) == 1)
    nodes: list[NodeProto] = []
    for node in packed.nodes:
        nodes += made.get(node.name or node.output[0], [node])
    packed.replace_nodes(nodes)
    packed.drop_unused_weights()
    packed.declare_domain(DOMAIN)
    return packed


def loudest_first(limits: Mapping[str, Limits], factors: Mapping[str, Factors]) -> list[str]:
    """Tensors by how far their largest value, smoothed, stands out of their root mean square; the worst first."""
    worst: dict[str, float] = {}
    for name, seen in limits.items():
        if seen.channels is None or not seen.rows:
            continue
        smoothing = factors.get(name, np.float32(1))
        size = float(np.sqrt(np.square(np.concatenate(seen.rows) / smoothing, dtype=np.float64).mean()))
        worst[name] = float((seen.channels / smoothing).max()) / max(size, 1e-12)
    return sorted(worst, key=lambda name: -worst[name])


def _int8_nodes(packed: Graph, graph: Graph, layer: Layer, data: str, *, first: bool, alone: bool) -> list[NodeProto]:
    """The layer's nodes; layers that share an input share its 8-bit form, made before the first of them."""
    weights = input_first(graph, layer)
    scale = (np.abs(weights).max(axis=0) / np.float32(127)).astype(np.float32)
    codes = np.round(weights / np.maximum(scale, np.float32(1e-30))).astype(np.int8)
    names = f"{layer.name}_int8", f"{layer.name}_scale"
    packed.model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(v), n) for n, v in zip(names, (codes, scale), strict=True)
    )
    if alone:
        return [
            helper.make_node(
                "DynamicQuantizeMatMul", [data, *names], [layer.output], name=layer.name, domain=DOMAIN
            )
        ]  # fmt: skip
    parts = [f"{data}_uint8", f"{data}_scale", f"{data}_zero"]
    product = helper.make_node(
        "MatMulIntegerToFloat", [parts[0], names[0], parts[1], names[1], parts[2]], [layer.output], name=layer.name,
        domain=DOMAIN,
    )  # fmt: skip
    return [helper.make_node("DynamicQuantizeLinear", [data], parts), product] if first else [product]
