"""What rounding a language model's weights costs, and what the corrections give back.

Every graph predicts the same held-back stories, in phrasings that calibration never sees. Activations stay in fp32.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgcc_calibration.analysis.perplexity import TextScore, Wording, score_texts
from mgcc_calibration.data.samples import CalibrationData, Feeds
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.quantise.grid import Grid
from mgcc_calibration.quantise.matmul_nbits import Correction, WeightOptions, WeightResult, of_bits, write_weight_only
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.commands.tables import markdown_table
from mgcc_runtime.contract import stage


@dataclass(frozen=True)
class Rounding:
    """Weights of so many bits, `block` inputs to a scale."""

    bits: int
    correction: Correction
    block: int = 32

    @property
    def name(self) -> str:
        return f"{self.bits} bits, {self.correction}"


#: The corrections are for few bits: with 8 there is nothing to give back.
ROUNDINGS = (Rounding(8, Correction.NONE), *(Rounding(4, correction) for correction in Correction))


@dataclass(frozen=True)
class RoundingScore:
    """One row of the comparison; the first, named fp32, is what all others are held against."""

    name: str
    perplexity: float
    tokens: int  # that were predicted
    agreement: float  # share of positions with the same likeliest token as in fp32
    weight_error: float  # of the weights as they were rounded (by AWQ: scaled before), mean of their relative L2
    weight_bytes: int  # of the rounded weights; 0 for fp32
    rounding_s: float  # what rounding took


def compare_roundings(
    bundle: Bundle,
    data: CalibrationData,
    wording: Wording,
    show: Callable[[str], None],
    roundings: Sequence[Rounding] = ROUNDINGS,
) -> Iterator[RoundingScore]:
    """Scores of the bundle's own llm graph, and of it with each rounding; DataError where data or texts do not do.

    The corrections' calibration runs take as many threads as the predictions; `show` is told what is under way.
    """
    spec = stage(bundle.manifest.dimensions, "llm")
    data.check(spec)
    source = bundle.file(bundle.manifest.stages["llm"].file)
    show("fp32")
    exact = score_texts(bundle, source, wording)
    yield RoundingScore("fp32", exact.perplexity, exact.tokens, 1.0, 0.0, 0, 0.0)
    graph = Graph.load(source)

    def samples() -> Iterator[Feeds]:
        return data.samples("llm")

    for rounding in roundings:
        show(rounding.name)
        started_s = time.monotonic()
        options = WeightOptions(
            Grid(rounding.bits, rounding.block), rounding.correction, accuracy_level=0, threads=max(wording.threads, 1)
        )
        result = write_weight_only(graph, of_bits(options, graph, rounding.bits), samples)
        spent_s = time.monotonic() - started_s
        with tempfile.TemporaryDirectory() as folder:
            path = result.graph.save(Path(folder) / "llm.onnx")
            found = score_texts(bundle, path, wording)
        yield _score(rounding, result, found, exact, spent_s)


def _score(
    rounding: Rounding, result: WeightResult, found: TextScore, exact: TextScore, spent_s: float
) -> RoundingScore:
    error = float(np.mean([layer.error for layer in result.layers]))
    size = sum(layer.bytes for layer in result.layers)
    return RoundingScore(
        rounding.name, found.perplexity, found.tokens, found.agreement(exact), error, size, round(spent_s, 1)
    )


def roundings_table(scores: Sequence[RoundingScore]) -> str:
    """The comparison as a Markdown table."""
    head = ("weights", "perplexity", "same likeliest token", "error of the weights", "size")
    rows = (
        (s.name, f"{s.perplexity:.3f}", f"{s.agreement:.3f}", f"{s.weight_error:.4f}",
         f"{s.weight_bytes / 2**20:.0f} MiB" if s.weight_bytes else "")
        for s in scores
    )  # fmt: skip
    return "\n".join(markdown_table(head, rows)) + "\n"
