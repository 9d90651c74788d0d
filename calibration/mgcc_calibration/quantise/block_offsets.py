"""4-bit weights with a scale and an offset for each block of inputs, as MatMulNBits multiplies them fast.

Published 4-bit weights (GGUF's Q4_1) are d * q + m, with q from 0 to 15 and d and m for each block: stored so, nothing
is lost. MatMulNBits' fast kernels take whole numbers alone for zero points. But with w = d * (q - 8) + c, what c gives
is c times the sum of the block's inputs. So a layer's input is made longer by these sums, and its weights by the c's:
they are 4-bit weights as well, once rounded and once more what rounding left, for a second copy of the sums, made
smaller. One product still does it all.

For weights that were not published so, this is rounding to nearest between each block's least and largest weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mgcc_calibration.graphs.edit import Array, add_weight, make_node
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.graphs.layers import Kind, Layer, find_layers
from mgcc_calibration.quantise.grid import Codes, Floats, Grid, block_scales, dequantised, round_to_nearest, to_codes
from mgcc_calibration.quantise.matmul_nbits import DOMAIN, WeightLayer, WeightResult, head_layers, pack_layer
from mgcc_calibration.quantise.smoothquant import input_first

BLOCK = 32
#: Sums for the second copy of the offsets are made smaller by this, and these offsets larger: what rounding leaves is
#: half a step at most, and the largest code is 7.
_FINER = 14
_LEVELS = 15  # steps between a block's least and largest weight


@dataclass(frozen=True)
class _Block4:
    """A layer's weights (K, N) as codes and scales, those of the offsets behind."""

    codes: Codes  # (K + 2 * blocks, N)
    scales: Floats
    error: float  # of the weights, relative L2


def write_block_offsets(graph: Graph, accuracy_level: int = 4) -> WeightResult:
    """Pack every linear layer: 4 bits with offsets; 8 for logits, and where inputs do not divide into blocks."""
    packed, heads = graph.copy(), head_layers(graph)
    longer: dict[str, ir.Value] = {}
    done = []
    for layer in find_layers(graph):
        if layer.kind is not Kind.LINEAR:
            continue
        weights = input_first(graph, layer)
        if layer.name in heads or len(weights) % BLOCK:
            done.append(pack_eight_bits(packed, layer, weights, accuracy_level))
            continue
        if layer.data not in longer:
            longer[layer.data] = _lengthen(packed, layer, len(weights))
        found = _four_bits(weights)
        rounded = (found.codes, found.scales)
        size = pack_layer(packed, layer, rounded, Grid(4, BLOCK), accuracy_level, longer[layer.data])
        done.append(WeightLayer(layer.name, 4, BLOCK, found.error, size))
    packed.drop_unused_weights()
    packed.declare_domain(DOMAIN)
    return WeightResult(packed, tuple(done), {})


def pack_eight_bits(packed: Graph, layer: Layer, weights: Floats, accuracy_level: int = 4) -> WeightLayer:
    """One layer in 8 bits; with 127 steps to either side where that is nearer, as it is for weights of Q8_0."""
    grid = Grid(8, BLOCK)
    codes, scales = round_to_nearest(weights, grid)
    even = np.abs(block_scales(weights, grid)) * np.float32(grid.half / (grid.half - 1))
    other = to_codes(weights, np.repeat(even, BLOCK, axis=0)[: len(weights)], grid)
    errors = [_relative(dequantised(c, s, grid), weights) for c, s in ((codes, scales), (other, even))]
    if errors[1] < errors[0]:
        codes, scales = other, even
    size = pack_layer(packed, layer, (codes, scales), grid, accuracy_level)
    return WeightLayer(layer.name, 8, BLOCK, min(errors), size)


def _four_bits(weights: Floats) -> _Block4:
    inputs, outputs = weights.shape
    blocks = weights.reshape(-1, BLOCK, outputs).astype(np.float64)
    least = blocks.min(axis=1)
    step = (blocks.max(axis=1) - least) / _LEVELS
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.nan_to_num(np.round((blocks - least[:, None]) / step[:, None]), posinf=0)
    offset = least + 8 * step  # (blocks, N)
    # the offsets' own scale: one for an output, in all blocks of theirs
    unit = np.abs(offset).max(axis=0) / 7
    with np.errstate(divide="ignore", invalid="ignore"):
        coarse = np.nan_to_num(np.round(offset / unit))
        fine = np.nan_to_num(np.round((offset - coarse * unit) * _FINER / unit))
    codes = np.concatenate([(steps - 8).reshape(inputs, outputs), coarse, fine]).astype(np.int16)
    added = -(-2 * len(offset) // BLOCK)
    scales = np.concatenate([step, np.repeat(unit[None], added, axis=0)]).astype(np.float32)
    stored = (steps - 8) * step[:, None] + (coarse * unit + fine * unit / _FINER)[:, None]
    return _Block4(codes, scales, _relative(stored, blocks))


def _relative(found: Array, exact: Array) -> float:
    return float(np.linalg.norm(found - exact) / max(float(np.linalg.norm(exact)), 1e-12))


def _lengthen(graph: Graph, layer: Layer, inputs: int) -> ir.Value:
    """Append the blocks' sums to the layer's input (1, S, K), in nodes before it; returns (1, S, K + 2 * blocks)."""
    node, data = graph.node(layer.name), layer.data
    constants: dict[str, Array] = {
        f"blocks_of_{inputs}": np.array([1, -1, inputs // BLOCK, BLOCK], np.int64),
        "block_axis": np.array([3], np.int64),
        "finer": np.array([1 / _FINER], np.float32),
    }
    shape, axis, finer = (
        graph.weights.get(name) or add_weight(graph.model.graph, name, value) for name, value in constants.items()
    )
    blocks = make_node("Reshape", [node.inputs[0], shape], [f"{data}_blocks"])
    sums = make_node("ReduceSum", [blocks.outputs[0], axis], [f"{data}_sums"], keepdims=0)
    smaller = make_node("Mul", [sums.outputs[0], finer], [f"{data}_finer"])
    parts = [node.inputs[0], sums.outputs[0], smaller.outputs[0]]
    joined = make_node("Concat", parts, [f"{data}_longer"], axis=-1)
    graph.model.graph.insert_before(node, [blocks, sums, smaller, joined])
    return joined.outputs[0]
