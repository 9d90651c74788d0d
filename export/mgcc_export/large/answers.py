"""PyTorch's answers of a model that does not fit into memory: a stage's parts are loaded for them and released."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mgcc_export.graphs.reference import ReferenceCase, compare_graph, reference_cases
from mgcc_export.graphs.to_onnx import ExportedGraph, export_stage
from mgcc_export.graphs.validate import TensorParity
from mgcc_export.precision.activation_scan import Feeds
from mgcc_export.stages.answers import ModelAnswers, cases_of
from mgcc_export.stages.golden import npz, stage_npz
from mgcc_export.stages.stage import ExampleMaker, Stage, input_axes
from mgcc_export.targets import TOLERANCES
from mgcc_ref.parts import PartedModel
from mgcc_ref.precision import Precision
from mgcc_runtime.measure.golden import StageGolden

#: The language model's features are computed for so many positions; longer ones repeat them.
FEATURE_POSITIONS = 128
MOST_IMAGES = 3


class PartExamples(ExampleMaker):
    """Seeded inputs as `ExampleMaker` makes them, from one pass of the language model, not one for each length."""

    def __init__(self, parts: PartedModel, seed: int = 0) -> None:
        super().__init__(parts.model, seed)
        self.random = parts.random

    def _features_of(self, length: int) -> Tensor:
        """Hidden states (1, length, D_f); noise of the same normalisation where the language model is noise too."""
        if not self._features:
            d = self.model.dimensions
            generator = torch.Generator().manual_seed(self.seed + 2)
            count = min(FEATURE_POSITIONS, d.context)
            if self.random:
                found = torch.randn(1, count, d.features // d.hidden, d.hidden, generator=generator)
                found = torch.nn.functional.layer_norm(found, (d.hidden,)).flatten(2)
            else:
                with torch.inference_mode():
                    embeddings = self._embeddings(count, generator)
                    found = self.model.llm(embeddings, *self.model.llm.empty_cache())[1]
            self._features[count] = found
        ((count, found),) = self._features.items()
        return found.repeat(1, -(-length // count), 1)[:, :length].clone()


def large_cases(stage: Stage) -> list[dict[str, int]]:
    """As `cases_of`, with at most three images at once: eight take a large vision tower minutes and show no more."""
    cases = [{**one, "B": min(one["B"], MOST_IMAGES)} if "B" in one else one for one in cases_of(stage)]
    return [dict(one) for one in dict.fromkeys(tuple(case.items()) for case in cases)]


@dataclass(frozen=True)
class PartAnswers:
    """Answers of a model whose parts are loaded while PyTorch computes; each answer is computed once."""

    maker: PartExamples
    parts: PartedModel
    _answers: dict[str, list[ReferenceCase]] = field(default_factory=dict, init=False)
    _real_answers: dict[str, list[ReferenceCase]] = field(default_factory=dict, init=False)

    def export(self, stage: Stage, graph: Path) -> ExportedGraph:
        # weights in a file of their own from the start: in the graph's they are in memory three times while it is
        # written and read (9.4 GB for CLIP's vision tower, whose weights are 1.2)
        return export_stage(
            stage.module, stage.spec, stage.axes, self.maker.trace_inputs(stage), graph, external_data_bytes=0
        )

    def check(self, stage: Stage, graph: Path, golden: Path) -> list[TensorParity]:
        """Compute PyTorch's answers first and release its parts, so that ONNX Runtime has the memory."""
        if input_axes(stage.spec):
            golden.write_bytes(stage_npz(stage, self.maker))
        cases = self.cases(stage)
        if not input_axes(stage.spec):  # the same inputs, and a UNet or VAE of this size takes a minute for them
            golden.write_bytes(npz(StageGolden(cases[0].feeds, cases[0].outputs).arrays()))
        return compare_graph(graph, graph, stage.spec, cases, TOLERANCES[Precision.FP32])

    def cases(self, stage: Stage) -> list[ReferenceCase]:
        """What a lowered graph is compared with; the parts are released after it."""
        if stage.name not in self._answers:
            lengths, make = large_cases(stage), lambda one: self.maker.inputs(stage.spec, one)
            self._answers[stage.name] = list(reference_cases(stage.module, stage.spec, lengths, make))
            self.parts.release()
        return self._answers[stage.name]

    def real(self, stage: Stage, captured: Iterable[Feeds]) -> list[ReferenceCase]:
        """The same for captured inputs; the parts, released after the other answers, are loaded again."""
        if stage.name not in self._real_answers:
            self.parts.hold([stage.name])
            self._real_answers[stage.name] = ModelAnswers(self.maker).real(stage, captured)
            self.parts.release()
        return self._real_answers[stage.name]

    def forget(self) -> None:
        """Drop the answers and release the parts."""
        self._answers.clear()
        self._real_answers.clear()
        self.parts.release()
