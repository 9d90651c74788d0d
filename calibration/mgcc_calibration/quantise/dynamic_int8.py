"""int8 weights by output channel, activations in 8 bits with the range of the moment, for a fused language model.

Such a range is of all positions together. A few layers meet single values hundreds of times as large as the rest (the
first position's, above all), and would round everything else away: these keep 8-bit weights by blocks, whose kernel
takes a range for each block of each position.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from mgcc_calibration.graphs.edit import add_weight, make_node, replace_node
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.graphs.layers import Kind, Layer, find_layers
from mgcc_calibration.quantise.block_offsets import pack_eight_bits
from mgcc_calibration.quantise.matmul_nbits import DOMAIN, head_layers
from mgcc_calibration.quantise.observe import Limits
from mgcc_calibration.quantise.smoothquant import Factors, input_first
from mgcc_runtime.device.cpu_features import sums_bytes_in_16_bits


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
    for group in readers.values():
        _replace(packed, group, [_int8_weights(packed, graph, layer, stored) for layer in group])
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


def _int8_weights(packed: Graph, graph: Graph, layer: Layer, stored: WeightBytes) -> list[ir.Value]:
    """The layer's new weights: codes (K, N), scales (N,), and zero points (N,) where they are not 0."""
    weights = input_first(graph, layer)
    scale = (np.abs(weights).max(axis=0) / np.float32(127)).astype(np.float32)
    codes = np.round(weights / np.maximum(scale, np.float32(1e-30)))
    values = {f"{layer.name}_{stored}": codes.astype(np.int8), f"{layer.name}_scale": scale}
    if stored is WeightBytes.UNSIGNED:
        values[f"{layer.name}_{stored}"] = (codes + 128).astype(np.uint8)
        values[f"{layer.name}_zero"] = np.full(scale.shape, 128, np.uint8)
    return [add_weight(packed.model.graph, name, value) for name, value in values.items()]


def _replace(graph: Graph, layers: Sequence[Layer], weights: Sequence[Sequence[ir.Value]]) -> None:
    """New nodes for layers that read one tensor, whose 8-bit form they share; it is made before the first of them."""
    nodes = [graph.node(layer.name) for layer in layers]
    data = nodes[0].inputs[0]
    if len(layers) == 1:
        operator, (codes, *others) = "DynamicQuantizeMatMul", weights[0]
        new = make_node(operator, [data, codes, *others], [layers[0].output], layers[0].name, DOMAIN)
        replace_node(graph.model.graph, nodes[0], [new])
        return
    parts = [f"{layers[0].data}_{what}" for what in ("uint8", "scale", "zero")]
    moment = make_node("DynamicQuantizeLinear", [data], parts)
    graph.model.graph.insert_before(nodes[0], moment)
    values, step, zero = moment.outputs
    for layer, node, (codes, scale, *of_codes) in zip(layers, nodes, weights, strict=True):
        inputs = [values, codes, step, scale, zero, *of_codes]
        product = make_node("MatMulIntegerToFloat", inputs, [layer.output], layer.name, DOMAIN)
        replace_node(graph.model.graph, node, [product])
