"""PyTorch's part in a stage's build: the export, the golden data, and the answers that graphs are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from mgcc_export.graphs.reference import ReferenceCase, compare_graph, reference_cases
from mgcc_export.graphs.to_onnx import ExportedGraph, export_stage
from mgcc_export.graphs.validate import FP32_TOLERANCE, TensorParity, run_reference
from mgcc_export.precision.activation_scan import Feeds
from mgcc_export.precision.ladder import between
from mgcc_export.stages.golden import stage_npz
from mgcc_export.stages.stage import GOLDEN_LENGTHS, ExampleMaker, Stage, input_axes, value_cases

REAL_CASES = 4  # captured inputs that 8-bit activations are compared on


class Answers(Protocol):
    """PyTorch's part for the stages of one model."""

    def export(self, stage: Stage, graph: Path) -> ExportedGraph:
        """The stage in fp32; ExportError if torch cannot."""

    def check(self, stage: Stage, graph: Path, golden: Path) -> list[TensorParity]:
        """Compare the exported graph, and write the golden data; ValidationError."""

    def cases(self, stage: Stage) -> list[ReferenceCase]:
        """The inputs and outputs that a lowered graph is compared with."""

    def real(self, stage: Stage, captured: Iterable[Feeds]) -> list[ReferenceCase]:
        """The same for some of the captured inputs, spread over all (for the UNet: over the steps)."""


@dataclass(frozen=True)
class ModelAnswers:
    """The same of a model in memory."""

    maker: ExampleMaker

    def export(self, stage: Stage, graph: Path) -> ExportedGraph:
        return export_stage(stage.module, stage.spec, stage.axes, self.maker.trace_inputs(stage), graph)

    def check(self, stage: Stage, graph: Path, golden: Path) -> list[TensorParity]:
        parity = compare_graph(graph, graph, stage.spec, self._cases(stage, value_cases(stage)), FP32_TOLERANCE)
        golden.write_bytes(stage_npz(stage, self.maker))
        return parity

    def cases(self, stage: Stage) -> list[ReferenceCase]:
        return list(self._cases(stage, cases_of(stage)))

    def _cases(self, stage: Stage, lengths: Iterable[Mapping[str, int]]) -> Iterator[ReferenceCase]:
        return reference_cases(stage.module, stage.spec, lengths, lambda one: self.maker.inputs(stage.spec, one))

    def real(self, stage: Stage, captured: Iterable[Feeds]) -> list[ReferenceCase]:
        every = list(captured)
        chosen = every[:: max(1, len(every) // REAL_CASES)][:REAL_CASES]
        names = {t.name: t.shape for t in stage.spec.inputs}
        found = []
        for feeds in chosen:
            lengths = {
                axis: feeds[name].shape[i] for name, shape in names.items() for i, axis in enumerate(shape)
                if isinstance(axis, str)
            }  # fmt: skip
            tensors = [torch.from_numpy(np.array(feeds[name])) for name in names]
            outputs = run_reference(stage.module, tensors)
            found.append(
                ReferenceCase(lengths, feeds, {t.name: v for t, v in zip(stage.spec.outputs, outputs, strict=True)})
            )
        return found


def cases_of(stage: Stage) -> list[dict[str, int]]:
    """Lengths at which a lower precision is compared.

    Those of fp32, one between the usual and the longest, and those of the golden data: what a device will be asked
    to give.
    """
    cases = value_cases(stage)
    if not input_axes(stage.spec):
        return cases  # of fixed shape, as the golden data is
    golden = {name: GOLDEN_LENGTHS[name] for name in cases[0]}
    return [*cases, between(cases[-2], cases[-1]), golden]
