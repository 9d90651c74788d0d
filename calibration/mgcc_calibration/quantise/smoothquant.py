"""SmoothQuant (arXiv 2211.10438): move the spread of a linear layer's input channels from activations to weights.

y = (x / s) (s W) for any s > 0. With s_j = max|x_j|^alpha / max|W_j|^(1 - alpha), loud channels of x no longer set the
scale for all. Alpha is chosen for each activation by the error of the layers that read it; "not at all" competes too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mgcc_calibration.graphs.edit import Array, add_weight, constant, is_weight, make_node, name_of
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.graphs.layers import Kind, Layer
from mgcc_calibration.quantise.activation_ranges import LEVELS
from mgcc_calibration.quantise.observe import Limits

ALPHAS = (0.35, 0.5, 0.65, 0.8)
_LEAST_GAIN = 0.95  # smoothing costs a multiplication where it cannot be folded: it has to earn it
_CLIP = (1e-2, 1e2)

Factors = NDArray[np.float32]


#: Of calibration rows (n, K), weights (K, N), channel magnitudes (K,) and s (K,): squared error of the outputs.
Error = Callable[[Array, Array, Array, Factors], float]
#: Of channel magnitudes (K,), rows (n, K), weights (K, N) and alpha: s (K,).
MakeFactors = Callable[[Array, Array, Array, float], Factors]


def choose_factors(graph: Graph, layers: Sequence[Layer], limits: Mapping[str, Limits]) -> dict[str, Factors]:
    """Activation -> s (K,), for those where smoothing lowers the error of W8A8 by 5 % or more."""
    return search_factors(graph, layers, limits, _factors, _error, ALPHAS)


def search_factors(
    graph: Graph, layers: Sequence[Layer], limits: Mapping[str, Limits],
    make: MakeFactors, error: Error, alphas: Sequence[float],
) -> dict[str, Factors]:  # fmt: skip
    """The s of least error over `alphas` for each activation of linear layers, where it gains at least 5 %."""
    found = {}
    for tensor, readers in _groups(graph, layers).items():
        seen = limits[tensor]
        if seen.channels is None or not seen.rows or seen.magnitude == 0:
            continue
        rows = np.concatenate(seen.rows)
        weights = np.concatenate([input_first(graph, layer) for layer in readers], axis=1)  # (K, sum of N)
        plain = error(rows, weights, seen.channels, np.ones(len(weights), np.float32))
        tried = [make(seen.channels, rows, weights, alpha) for alpha in alphas]
        errors = [error(rows, weights, seen.channels, s) for s in tried]
        best = int(np.argmin(errors))
        if errors[best] < _LEAST_GAIN * plain:
            found[tensor] = tried[best]
    return found


def apply_factors(graph: Graph, layers: Sequence[Layer], factors: Mapping[str, Factors]) -> tuple[Graph, list[Layer]]:
    """A copy of the graph that computes the same with smoothed activations, and the layers as they stand in it.

    1 / s goes into the LayerNormalization, the multiplication by a constant, or the gated linear layer that makes the
    activation, if only these layers read it; else a Mul is put in.
    """
    smoothed, moved = graph.copy(), {layer.name: layer for layer in layers}
    for tensor, readers in _groups(graph, layers).items():
        if tensor not in factors:
            continue
        s = factors[tensor]
        inverse = np.asarray(1 / s, np.float32)
        for layer in readers:
            values = smoothed.weight(layer.weight)
            shape = [1, 1]
            shape[layer.input_axis] = -1
            smoothed.set_weight(layer.weight, values * s.reshape(shape))
        activation = smoothed.tensors[tensor]
        if not _fold(smoothed, activation, len(readers), inverse):
            new = _insert(smoothed, activation, readers, inverse)
            for layer in readers:
                moved[layer.name] = replace(layer, data=new)
    return smoothed, [moved[layer.name] for layer in layers]


def _groups(graph: Graph, layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """Linear layers by the activation that they share; without those whose weight another node uses too."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.kind is Kind.LINEAR and len(graph.weights[layer.weight].consumers()) == 1:
            found.setdefault(layer.data, []).append(layer)
    return found


def input_first(graph: Graph, layer: Layer) -> NDArray[np.float32]:
    """The weight as (K, N) float32."""
    values = graph.weight(layer.weight).astype(np.float32)
    return values if layer.input_axis == 0 else values.T


def _factors(channels: Array, rows: Array, weights: Array, alpha: float) -> Factors:
    magnitude = np.maximum(np.abs(weights).max(axis=1), 1e-5)
    s = np.maximum(channels, 1e-5) ** alpha / magnitude ** (1 - alpha)
    return normalised(np.where(channels > 0, s, 1.0))


def normalised(s: Array) -> Factors:
    """Factors with a geometric mean of 1, so that the weights stay near their size; clipped."""
    return np.asarray(np.clip(s / np.exp(np.log(s).mean()), *_CLIP), np.float32)


def _error(rows: Array, weights: Array, channels: Array, s: Factors) -> float:
    """Squared error of the layers' outputs with weights and activations in 8 bits."""
    x, w = rows / s, weights * s[:, None]
    activation_step = max(float((channels / s).max()) / LEVELS, 1e-12)
    weight_step = np.maximum(np.abs(w).max(axis=0), 1e-12) / LEVELS
    quantised = (np.round(x / activation_step) * activation_step) @ (np.round(w / weight_step) * weight_step)
    return float(np.square(quantised - rows @ weights).sum())


def _fold(graph: Graph, tensor: ir.Value, readers: int, inverse: Factors) -> bool:
    """Multiply what makes `tensor` by `inverse`; False if that would reach others than its `readers`."""
    node = tensor.producer()
    if node is None or tensor.is_graph_output() or len(tensor.consumers()) != readers:
        return False
    if (gated := _gated_weight(node)) is not None:
        names = [gated]
    else:
        scaling = _scaling_weights(node)
        if not scaling or not all(is_weight(value) and len(value.consumers()) == 1 for value in scaling):
            return False
        names = [str(value.name) for value in scaling]
        if any(graph.weight(name).shape != inverse.shape for name in names):
            return False
    for name in names:
        graph.set_weight(name, graph.weight(name) * inverse)
    return True


def _scaling_weights(node: ir.Node) -> list[ir.Value]:
    """The weights by which the node's output can be scaled, channel by channel."""
    if node.op_type == "LayerNormalization":
        return [value for value in node.inputs[1:] if value is not None]
    if node.op_type == "Mul":
        constants = [value for value in node.inputs if value is not None and constant(value) is not None]
        return constants if len(constants) == 1 else []
    return []


def _gated_weight(node: ir.Node) -> str | None:
    """Of a product gate * (x W), as in SwiGLU, the weight W (K, N), where nothing else reads x W or W.

    Its outputs are scaled by column, which costs nothing: a column has its own scale in every precision.
    """
    if node.op_type != "Mul":
        return None
    for value in node.inputs:
        linear = None if value is None else value.producer()
        if value is None or linear is None or linear.op_type != "MatMul":
            continue
        weight = linear.inputs[1]
        if weight is None or not is_weight(weight) or weight.shape is None:
            continue
        sole = len(value.consumers()) == len(weight.consumers()) == 1
        if sole and not value.is_graph_output() and len(weight.shape) == 2:
            return str(weight.name)
    return None


def _insert(graph: Graph, tensor: ir.Value, readers: Sequence[Layer], inverse: Factors) -> str:
    """A Mul between `tensor` and `readers`; returns its output."""
    new, dtype = f"{tensor.name}_smoothed", graph.weight(readers[0].weight).dtype
    smoothing = add_weight(graph.model.graph, f"{tensor.name}_smoothing", inverse.astype(dtype))
    product = make_node("Mul", [tensor, smoothing], [new], f"{new}_mul")
    names = {layer.name for layer in readers}
    nodes = [node for node in graph.nodes if name_of(node) in names]
    graph.model.graph.insert_before(nodes[0], product)
    for node in nodes:
        node.replace_input_with(0, product.outputs[0])
    return new
