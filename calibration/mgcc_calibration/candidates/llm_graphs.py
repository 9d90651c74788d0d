"""The language model's candidates for ONNX Runtime: its graph fused (`fuse_llm`), in each precision."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgcc_calibration.candidates.candidate import Candidate, CandidateOptions, Engine, GraphForm
from mgcc_calibration.data.samples import Feeds
from mgcc_calibration.graphs.fuse_llm import fuse_language_model
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.graphs.layers import Kind, Layer, find_layers
from mgcc_calibration.graphs.merge_linear import merge_gates
from mgcc_calibration.quantise.block_offsets import write_block_offsets
from mgcc_calibration.quantise.dynamic_int8 import WeightBytes, loudest_first, write_dynamic_int8
from mgcc_calibration.quantise.matmul_nbits import Correction, WeightResult
from mgcc_calibration.quantise.observe import Samples, measure_limits
from mgcc_calibration.quantise.smoothquant import apply_factors, choose_factors
from mgcc_ref.precision import Precision

_LOG = logging.getLogger(__name__)

#: Published 4-bit weights come back to within this, relative L2 of a layer; others are several hundred times as far.
_EXACT = 1e-3
#: Of the tensors that linear layers read, how many keep ranges for each block; tried from the first on.
SPARED = (0, 4, 8, 16)

#: Relative L2 error of a graph's outputs against fp32, the worst output.
Error = Callable[[Path], float]


def reading(samples: Samples) -> Samples:
    """The language model's samples with several new positions: prefill and [IMG] tokens."""
    return _only(samples, one=False)


def decoding(samples: Samples) -> Samples:
    """The language model's samples with one new position: decode steps."""
    return _only(samples, one=True)


def _only(samples: Samples, *, one: bool) -> Samples:
    def again() -> Iterator[Feeds]:
        return (feeds for feeds in samples() if (feeds["inputs_embeds"].shape[1] == 1) is one)

    return again


@dataclass
class FusedLlm:
    """Makes the candidates from the fp32 graph at `source`; FusionError at the first if it cannot be fused.

    `matmul_nbits` stores weights of a graph in so many bits, as the options ask for it.
    """

    source: Path
    samples: Samples
    folder: Path
    options: CandidateOptions
    weight_only: Callable[[Graph, int], WeightResult]
    error: Error

    def check(self) -> None:
        """FusionError if the graph cannot be fused."""
        self._fused()

    def _fused(self) -> Graph:
        """The fused graph, made anew each time: its fp32 weights are most of the memory that a build holds."""
        return fuse_language_model(Graph.load(self.source), self.options.context)

    def make(self, precision: Precision) -> Candidate:
        """One precision as a file FOLDER/fused-PRECISION/llm.onnx."""
        makers = {
            Precision.FP32: self._fp32,
            Precision.INT8_DYNAMIC: self._dynamic,
            Precision.INT8_WEIGHTS: self._eight_bits,
            Precision.INT4_WEIGHTS: self._four_bits,
        }
        return makers[precision]()

    def _path(self, precision: Precision) -> Path:
        return self.folder / f"fused-{precision}" / self.source.name

    def _candidate(self, precision: Precision, quantised: int, note: str, kept: Sequence[str] = ()) -> Candidate:
        reasons = dict.fromkeys(kept, "8-bit blocks: single values of its input stand out")
        return Candidate(
            Engine.ONNXRUNTIME, precision, self._path(precision), reasons, quantised, note, GraphForm.FUSED
        )

    def _fp32(self) -> Candidate:
        self._fused().save(self._path(Precision.FP32))
        return self._candidate(Precision.FP32, 0, "fused")

    def _eight_bits(self) -> Candidate:
        result = self.weight_only(Graph.load(self.source), 8)
        graph = fuse_language_model(result.graph, self.options.context)
        merge_gates(graph)
        graph.save(self._path(Precision.INT8_WEIGHTS))
        note = f"fused, {self.options.weights.correction}, blocks of {self.options.weights.grid.block}"
        return self._candidate(Precision.INT8_WEIGHTS, len(result.layers), note)

    def _four_bits(self) -> Candidate:
        """4-bit weights, with an offset a block where they were published so or no correction is asked for."""
        merged = self._fused()
        merge_gates(merged)
        offsets = write_block_offsets(merged, self.options.weights.accuracy_level)
        worst = max((layer.error for layer in offsets.layers if layer.bits == 4), default=0.0)
        if worst <= _EXACT or self.options.weights.correction is Correction.NONE:
            offsets.graph.save(self._path(Precision.INT4_WEIGHTS))
            note = "fused, scale and offset for each block of 32, 8 bits for the logits"
            return self._candidate(Precision.INT4_WEIGHTS, len(offsets.layers), note)
        result = self.weight_only(Graph.load(self.source), 4)
        graph = fuse_language_model(result.graph, self.options.context)
        merge_gates(graph)
        graph.save(self._path(Precision.INT4_WEIGHTS))
        note = f"fused, {self.options.weights.correction}, blocks of {self.options.weights.grid.block}"
        return self._candidate(Precision.INT4_WEIGHTS, len(result.layers), note)

    def _dynamic(self) -> Candidate:
        """8-bit weights and activations: smoothed, then the loudest inputs spared until the error is in the budget.

        The error is that of several positions at a time, which this precision is for.
        """
        path, plain = self._path(Precision.INT8_DYNAMIC), Graph.load(self.source)
        layers = [layer for layer in find_layers(plain) if layer.kind is Kind.LINEAR]
        tensors = list(dict.fromkeys(layer.data for layer in layers))
        limits = measure_limits(plain, tensors, tensors, reading(self.samples), self.options.weights.threads)
        factors = choose_factors(plain, layers, limits)
        smoothed, moved = apply_factors(plain, layers, factors)
        del plain
        graph = fuse_language_model(smoothed, self.options.context)
        del smoothed
        renamed = {old.data: new.data for old, new in zip(layers, moved, strict=True)}
        loud = [renamed[name] for name in loudest_first(limits, factors)]
        allowed, stored = 10 ** (-self.options.least_db / 20), WeightBytes.of_this_cpu()
        for count in SPARED:
            write_dynamic_int8(graph, loud[:count], stored).save(path)
            error = self.error(path)
            _LOG.info("stage llm in %s with %d inputs spared: error %.3g", Precision.INT8_DYNAMIC, count, error)
            if error <= allowed:
                break
        note = f"fused, smoothed before {len(factors)} layers, {count} inputs spared, {stored}"
        return self._candidate(Precision.INT8_DYNAMIC, len(layers), note, _names(moved, loud[:count]))


def _names(layers: Sequence[Layer], tensors: Sequence[str]) -> list[str]:
    return [layer.name for layer in layers if layer.data in set(tensors)]
