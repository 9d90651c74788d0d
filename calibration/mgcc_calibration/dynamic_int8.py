"""int8 weights by output channel, activations in 8 bits with the range of the moment, for a fused language model.

Such a range is of all positions together. A few layers meet single values hundreds of times as large as the rest (the
first position's, above all), and would round everything else away: these keep 8-bit weights by blocks, whose kernel
takes a range for each block of each position.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from mgcc_calibration.block_offsets import pack_eight_bits
from mgcc_calibration.graph import Graph
from mgcc_calibration.layers import Kind, Layer, find_layers
from mgcc_calibration.observe import Limits
from mgcc_calibration.smooth import Factors, input_first
from mgcc_calibration.weight_only import DOMAIN, head_layers
from mgcc_runtime.cpu_features import sums_bytes_in_16_bits


class WeightBytes(enum.StrEnum):
    """How 8-bit weights are stored; their values are the same, and so are the products, on every CPU."""

    SIGNED = "int8"  # native where the CPU has VNNI, and on arm64
    #: What CPUs without VNNI multiply exactly. ONNX Runtime makes these of signed ones while loading, but keeps both:
    #: the story's language model then holds 283 MB in place of 203.
    UNSIGNED = "uint8"

    @classmethod
    def of_this_cpu(cls) -> WeightBytes:
        return cls.UNSIGNED if sums_bytes_in_16_bits() else cls.SIGNED


def write_dynamic_int8(graph: Graph, spared: Collection[str], stored: WeightBytes = WeightBytes.SIGNED) -> Graph:
    """Every linear layer in 8 bits, those that read a tensor of `spared` or give the logits by blocks."""
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
            names = _int8_weights(packed, graph, layer, stored)
            made[layer.name] = _int8_nodes(layer, data, names, first=layer is group[0], alone=len(group) == 1)
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


def _int8_weights(packed: Graph, graph: Graph, layer: Layer, stored: WeightBytes) -> list[str]:
    """Names of the layer's new weights: codes (K, N), scales (N,), and zero points (N,) where they are not 0."""
    weights = input_first(graph, layer)
    scale = (np.abs(weights).max(axis=0) / np.float32(127)).astype(np.float32)
    codes = np.round(weights / np.maximum(scale, np.float32(1e-30)))
    values = {f"{layer.name}_{stored}": codes.astype(np.int8), f"{layer.name}_scale": scale}
    if stored is WeightBytes.UNSIGNED:
        values[f"{layer.name}_{stored}"] = (codes + 128).astype(np.uint8)
        values[f"{layer.name}_zero"] = np.full(scale.shape, 128, np.uint8)
    packed.model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in values.items()
    )
    return list(values)


def _int8_nodes(layer: Layer, data: str, names: Sequence[str], *, first: bool, alone: bool) -> list[NodeProto]:
    """The layer's nodes; layers that share an input share its 8-bit form, made before the first of them."""
    codes, scale, *zero = names
    if alone:
        return [
            helper.make_node(
                "DynamicQuantizeMatMul", [data, codes, scale, *zero], [layer.output], name=layer.name, domain=DOMAIN
            )
        ]  # fmt: skip
    parts = [f"{data}_uint8", f"{data}_scale", f"{data}_zero"]
    product = helper.make_node(
        "MatMulIntegerToFloat", [parts[0], codes, parts[1], scale, parts[2], *zero], [layer.output], name=layer.name,
        domain=DOMAIN,
    )  # fmt: skip
    return [helper.make_node("DynamicQuantizeLinear", [data], parts), product] if first else [product]
