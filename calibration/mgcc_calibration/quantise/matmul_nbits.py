"""Weights in 8 or 4 bits, activations as they were: MatMulNBits for ONNX Runtime on the CPU.

`onnxruntime.quantization.matmul_nbits_quantizer` rounds to nearest, as here (a test holds the two together, byte for
byte). Its GPTQ runs the whole graph again for every activation, packs 4 bits alone, takes scales anew from corrected
weights, and writes nodes in an order that changes with Python's hash seed; its AWQ needs NVIDIA's modelopt, its HQQ
torch; none takes Gemm. So the corrections are our own: GPTQ, and AWQ's scaling (arXiv 2306.00978) by the same folding
that SmoothQuant uses.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from mgcc_calibration.errors import MethodError
from mgcc_calibration.graphs.edit import Array, add_weight, is_weight, make_node, replace_node
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.graphs.layers import Kind, Layer, find_layers
from mgcc_calibration.quantise.gptq import gptq, gram_matrices
from mgcc_calibration.quantise.grid import Codes, Floats, Grid, dequantised, round_to_nearest
from mgcc_calibration.quantise.observe import Samples, measure_limits
from mgcc_calibration.quantise.smoothquant import Factors, apply_factors, input_first, normalised, search_factors

_ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8)
DOMAIN = "com.microsoft"
DEFAULT_GRID = Grid(4, 32)


class Correction(enum.StrEnum):
    """What is done about the rounding of weights."""

    NONE = "rtn"  # round to nearest; the only one that needs no calibration data
    AWQ = "awq"  # scale up the weights of loud inputs first
    GPTQ = "gptq"  # let later weights make up for earlier ones
    AWQ_GPTQ = "awq-gptq"


@dataclass(frozen=True)
class WeightOptions:
    """How weights are stored. `accuracy_level` 4 lets ONNX Runtime multiply in int8, 0 keeps to fp32."""

    grid: Grid = DEFAULT_GRID
    correction: Correction = Correction.NONE
    overrides: Mapping[str, Grid] = field(default_factory=dict)  # layer -> its own grid
    keep: frozenset[str] = frozenset()  # layers that stay as they are
    accuracy_level: int = 4
    threads: int = 1

    @property
    def needs_samples(self) -> bool:
        return self.correction is not Correction.NONE


@dataclass(frozen=True)
class WeightLayer:
    """One layer's outcome. `error`: of its weights, relative L2."""

    layer: str
    bits: int
    block: int
    error: float
    bytes: int


@dataclass(frozen=True)
class WeightResult:
    """A graph with packed weights and what became of each layer."""

    graph: Graph
    layers: tuple[WeightLayer, ...]
    kept: Mapping[str, str]


def write_weight_only(graph: Graph, options: WeightOptions, samples: Samples | None = None) -> WeightResult:
    """Pack the weights of every linear layer; MethodError if a correction is asked for without samples."""
    if options.needs_samples and samples is None:
        raise MethodError(f"correction {options.correction} needs calibration data, got none; give some, or use rtn")
    layers = [layer for layer in find_layers(graph) if layer.kind is Kind.LINEAR and layer.name not in options.keep]
    if samples is not None and options.correction in (Correction.AWQ, Correction.AWQ_GPTQ):
        factors = _awq_factors(graph, layers, samples, options)
        graph, layers = apply_factors(graph, layers, factors)
    packed = graph.copy()
    done: dict[str, WeightLayer] = {}
    for layer, codes, scales in _quantised(graph, layers, samples, options):
        grid = options.overrides.get(layer.name, options.grid)
        weights = input_first(graph, layer)
        difference = dequantised(codes, scales, grid) - weights
        error = float(np.linalg.norm(difference) / max(float(np.linalg.norm(weights)), 1e-12))
        size = pack_layer(packed, layer, (codes, scales), grid, options.accuracy_level)
        done[layer.name] = WeightLayer(layer.name, grid.bits, grid.block, error, size)
    packed.drop_unused_weights()
    packed.declare_domain(DOMAIN)
    kept = {x.name: "convolution" for x in find_layers(graph) if x.kind is Kind.CONV}
    kept |= dict.fromkeys(sorted(options.keep), "kept by choice")
    return WeightResult(packed, tuple(done[layer.name] for layer in layers), kept)


def of_bits(options: WeightOptions, graph: Graph, bits: int) -> WeightOptions:
    """The options for weights of so many bits; with 4 the layers that give an output keep 8.

    What gives the logits decides between near words, and nothing after it can make up for an error.
    """
    heads = {name: replace(options.grid, bits=8) for name in head_layers(graph)} if bits == 4 else {}
    return replace(options, grid=replace(options.grid, bits=bits), overrides={**heads, **options.overrides})


def head_layers(graph: Graph) -> tuple[str, ...]:
    """Linear layers that give a graph's output directly, such as the logits; no other node reads their values."""
    tensors = graph.tensors
    linear = [layer for layer in find_layers(graph) if layer.kind is Kind.LINEAR]
    return tuple(layer.name for layer in linear if _leads_to_output(tensors[layer.output]))


def _leads_to_output(tensor: ir.Value) -> bool:
    """Whether `tensor` reaches an output through nothing but a bias and shape changes, and nothing else reads it."""
    if tensor.is_graph_output():
        return True
    readers = tensor.consumers()
    if len(readers) != 1:
        return False
    biased = readers[0].op_type == "Add" and any(is_weight(value) for value in readers[0].inputs)
    plain = biased or readers[0].op_type in ("Concat", "Reshape", "Unsqueeze", "Squeeze", "Identity")
    return plain and _leads_to_output(readers[0].outputs[0])


def _quantised(
    graph: Graph, layers: Collection[Layer], samples: Samples | None, options: WeightOptions
) -> Iterator[tuple[Layer, Codes, Floats]]:
    """(layer, codes, scales) of every layer, in the order in which their Gram matrices come."""
    if samples is None or options.correction in (Correction.NONE, Correction.AWQ):
        for layer in layers:
            yield layer, *round_to_nearest(input_first(graph, layer), options.overrides.get(layer.name, options.grid))
        return
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        readers.setdefault(layer.data, []).append(layer)
    widths = {tensor: len(input_first(graph, found[0])) for tensor, found in readers.items()}
    for tensor, gram in gram_matrices(graph, widths, samples, options.threads):
        for layer in readers[tensor]:
            grid = options.overrides.get(layer.name, options.grid)
            yield layer, *gptq(input_first(graph, layer), gram, grid)


def _awq_factors(
    graph: Graph, layers: Collection[Layer], samples: Samples, options: WeightOptions
) -> dict[str, Factors]:
    names = list(dict.fromkeys(layer.data for layer in layers))
    limits = measure_limits(graph, names, names, samples, options.threads)

    def make(channels: Array, rows: Array, weights: Array, alpha: float) -> Factors:
        return normalised(np.maximum(np.abs(rows).mean(axis=0), 1e-5) ** alpha)

    def error(rows: Array, weights: Array, channels: Array, s: Factors) -> float:
        scaled = np.asarray(weights * s[:, None], np.float32)
        rounded = dequantised(*round_to_nearest(scaled, options.grid), options.grid) / s[:, None]
        return float(np.square(rows @ (rounded - weights)).sum())

    return search_factors(graph, list(layers), limits, make, error, _ALPHAS)


def pack_layer(
    graph: Graph,
    layer: Layer,
    rounded: tuple[Codes, Floats],
    grid: Grid,
    accuracy_level: int,
    data: ir.Value | None = None,
) -> int:
    """Replace the layer's node by MatMulNBits, which reads `data` if that is given; the bytes of its weights.

    `rounded`: codes and scales, as `round_to_nearest` gives them.
    """
    codes, scales = rounded
    packed, flat = pack_codes(codes, grid), np.ascontiguousarray(scales.T.reshape(-1))
    weights = [
        add_weight(graph.model.graph, f"{layer.name}_{what}", value)
        for what, value in ((f"Q{grid.bits}", packed), ("scales", flat))
    ]
    node = graph.node(layer.name)
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    new = [
        make_node(
            "MatMulNBits", [data or node.inputs[0], *weights], [f"{layer.output}_product" if bias else layer.output],
            layer.name, DOMAIN, K=len(codes), N=codes.shape[1], accuracy_level=accuracy_level, bits=grid.bits,
            block_size=grid.block,
        )
    ]  # fmt: skip
    if bias:
        new.append(make_node("Add", [new[0].outputs[0], bias], [layer.output], f"{layer.name}_bias"))
    replace_node(graph.model.graph, node, new)
    return packed.nbytes + flat.nbytes


def pack_codes(codes: Codes, grid: Grid) -> Array:
    """Signed codes (K, N) -> (N, blocks, bytes of a block) uint8; of two 4-bit codes the first is the low half."""
    inputs, outputs = codes.shape
    blocks = grid.blocks(inputs)
    padded = np.zeros((blocks * grid.block, outputs), np.uint8)  # past K nothing is read
    padded[:inputs] = codes + grid.half
    by_output = padded.T.reshape(outputs, blocks, grid.block)
    if grid.bits == 8:
        return np.ascontiguousarray(by_output)
    return np.ascontiguousarray(by_output[:, :, 0::2] | (by_output[:, :, 1::2] << 4))
