"""What is to be quantised and with which ranges: found once from the fp32 graph, applied as often as needed."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mgcc_calibration.errors import CalibrationError, MethodError
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.graphs.layers import Kind, Layer, ResidualAdd, find_layers, find_residuals, left_alone
from mgcc_calibration.quantise.activation_ranges import Method, choose_range
from mgcc_calibration.quantise.observe import Samples, measure_histograms, measure_limits, timestep_groups
from mgcc_calibration.quantise.smoothquant import Factors, apply_factors, choose_factors


class Smoothing(enum.StrEnum):
    """Whether linear layers are smoothed."""

    OFF = "off"
    SEARCH = "search"  # alpha by the layers' error, and only where it helps


class WeightCodes(enum.IntEnum):
    """The largest code of an int8 weight.

    CPUs without VNNI sum two products of unsigned activations by signed weights in 16 bits: with weights of 64 at most
    that cannot saturate (2 x 255 x 64 = 32,640). OpenVINO multiplies so there, and loses up to 30 dB of a layer's
    signal with larger ones; ONNX Runtime is told not to (`cpu_settings`), and TensorRT sums in 32 bits.
    """

    FULL = 127
    REDUCED = 64  # exact on every CPU; beside the activations' rounding, twice the weights' costs a layer 3 dB


class Placement(enum.StrEnum):
    """Where Q/DQ pairs stand besides the weights."""

    INPUTS = "inputs"  # at the layers' inputs and the other operand of a residual addition: what TensorRT fuses
    INPUTS_OUTPUTS = "inputs-outputs"  # also at convolutions' outputs: what ONNX Runtime needs for its integer ones


@dataclass(frozen=True)
class PlanOptions:
    """How ranges are found."""

    method: Method = Method.MSE
    percentile: float = 99.99
    smoothing: Smoothing = Smoothing.SEARCH
    timestep_groups: int = 5
    threads: int = 1

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100 or self.timestep_groups < 1:
            raise MethodError(
                f"percentile is {self.percentile:g} and timestep_groups {self.timestep_groups}, expected above 50 up "
                "to 100, and at least 1; change them"
            )


@dataclass(frozen=True)
class Plan:
    """Layers to quantise, the bound of every activation in question, and what stays as it is and why."""

    layers: tuple[Layer, ...]  # as they stand in `graph`
    residuals: tuple[ResidualAdd, ...]
    bounds: Mapping[str, float]
    kept: Mapping[str, str]  # layer -> reason
    smoothed: Mapping[str, Factors]
    graph: Graph = field(repr=False)  # in full precision, smoothed
    codes: WeightCodes = WeightCodes.FULL

    def without(self, names: Collection[str], reason: str) -> Plan:
        """The plan with these layers kept in higher precision."""
        kept = {**self.kept, **{layer.name: reason for layer in self.layers if layer.name in names}}
        return replace(self, layers=tuple(x for x in self.layers if x.name not in names), kept=kept)

    def only(self, names: Collection[str]) -> Plan:
        """The plan with none but these layers quantised, to see what each of them costs."""
        return replace(self, layers=tuple(x for x in self.layers if x.name in names))

    def to_json(self) -> dict[str, Any]:
        return {
            "quantised": [layer.name for layer in self.layers],
            "kept": dict(self.kept),
            "bounds": {name: float(self.bounds[name]) for name in self.bounds},
            "smoothed": sorted(self.smoothed),
        }


def make_plan(graph: Graph, samples: Samples, options: PlanOptions = PlanOptions()) -> Plan:
    """Ranges of all layers that no rule leaves alone; CalibrationError if none is left.

    Three passes over the samples: limits, limits of the smoothed graph, histograms. Nothing is drawn at random.
    """
    every = find_layers(graph)
    kept = left_alone(graph, every)
    layers = [layer for layer in every if layer.name not in kept]
    _check_some(layers, every, kept)
    linear = [layer.data for layer in layers if layer.kind is Kind.LINEAR]
    factors: dict[str, Factors] = {}
    if options.smoothing is Smoothing.SEARCH and linear:
        names = list(dict.fromkeys(linear))
        factors = choose_factors(graph, layers, measure_limits(graph, names, names, samples, options.threads))
        graph, layers = apply_factors(graph, layers, factors)
    residuals = find_residuals(graph, layers)
    tensors = list(dict.fromkeys(_tensors(layers, residuals)))
    limits = measure_limits(graph, tensors, (), samples, options.threads)
    silent = [layer for layer in layers if limits[layer.data].magnitude == 0]
    kept |= {layer.name: "its input is 0 in all calibration data" for layer in silent}
    layers = [layer for layer in layers if layer not in silent]
    _check_some(layers, every, kept)
    shapes = {name: seen.shapes for name, seen in limits.items()}
    outputs = {layer.name: layer.output for layer in layers}
    residuals = tuple(r for r in residuals if r.layer in outputs and shapes[r.operand] == shapes[outputs[r.layer]])
    wanted = {n: limits[n].magnitude for n in dict.fromkeys(_tensors(layers, residuals)) if limits[n].magnitude > 0}
    histograms = measure_histograms(
        graph, wanted, samples, timestep_groups(samples, options.timestep_groups), options.threads
    )
    bounds = {n: choose_range(groups, options.method, options.percentile) for n, groups in histograms.items()}
    return Plan(tuple(layers), residuals, {n: b for n, b in bounds.items() if b > 0}, kept, factors, graph)


def _check_some(layers: Collection[Layer], every: Collection[Layer], kept: Mapping[str, str]) -> None:
    if not layers:
        raise CalibrationError(
            f"none of the graph's {len(every)} layers can be quantised ({'; '.join(sorted(set(kept.values())))}), "
            "expected at least one; keep this stage in higher precision"
        )


def _tensors(layers: Collection[Layer], residuals: Collection[ResidualAdd]) -> list[str]:
    """Every activation whose range may be needed, in the graph's order of layers."""
    names = [name for layer in layers for name in (layer.data, layer.output)]
    return names + [r.operand for r in residuals]


def weight_scales(weight: np.ndarray[Any, Any], axis: int, levels: int = 127) -> np.ndarray[Any, Any]:
    """One scale for each place on `axis`, so that the largest magnitude is the largest code; 1 for all zeros."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight.astype(np.float32)).max(axis=others)
    return np.where(largest > 0, largest / levels, 1.0).astype(np.float32)
