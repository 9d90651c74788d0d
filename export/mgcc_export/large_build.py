"""Stages of a model that is too large to be in memory whole: each one's parts come when it is made and go after."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

import mgcc_ref.llm
import mgcc_ref.llm_layers
from mgcc_export import llm_chain, llm_merge, llm_segments, stages, to_onnx, validate
from mgcc_export.errors import ValueMismatchError
from mgcc_export.golden import npz, stage_npz
from mgcc_export.llm_chain import STATE, CacheTooLargeError, ChainState, check_contract, first_state, lower_segment
from mgcc_export.llm_merge import merge_segments
from mgcc_export.llm_segments import LlmSegments
from mgcc_export.low_report import LowReport
from mgcc_export.lower import node_types, types_by_operator
from mgcc_export.reference import ReferenceCase, compare_graph, reference_cases
from mgcc_export.stage_build import StageBuilder, cases_of
from mgcc_export.stage_cache import BuiltStage, versions
from mgcc_export.stages import ExampleMaker, Stage, input_axes
from mgcc_export.targets import TOLERANCES, Form, Precision, fallbacks
from mgcc_export.to_onnx import export_stage
from mgcc_ref.parts import PartedModel
from mgcc_runtime.contract import past_names, present_names
from mgcc_runtime.golden import StageGolden
from mgcc_runtime.names import golden_file, graph_file

#: The language model's features are computed for so many positions; longer ones repeat them.
FEATURE_POSITIONS = 128
MOST_IMAGES = 3
SCAN_UNUSED = (
    "--scan was not used: a language model that is built block by block is scanned with its example inputs alone"
)

#: Modules whose code decides what a segment's files hold, besides those of lowering.
_CHAIN = (llm_chain, llm_merge, llm_segments, mgcc_ref.llm, mgcc_ref.llm_layers, stages, to_onnx, validate)


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
    """As `cases_of`, with at most three images at once: eight are minutes of a large vision tower and say no more."""
    cases = [{**one, "B": min(one["B"], MOST_IMAGES)} if "B" in one else one for one in cases_of(stage)]
    return [dict(one) for one in dict.fromkeys(tuple(case.items()) for case in cases)]


@dataclass(frozen=True)
class LargeStageBuilder(StageBuilder):
    """A `StageBuilder` that holds one stage's parts at a time, and the language model's blocks one by one."""

    parts: PartedModel = field(kw_only=True)
    _answers: dict[str, list[ReferenceCase]] = field(default_factory=dict, init=False)
    _real_answers: dict[str, list[ReferenceCase]] = field(default_factory=dict, init=False)

    def obtain(self, stage: Stage) -> tuple[BuiltStage, bool]:
        """The accepted stage, and whether the cache had it. The module of `stage` may be without storage."""
        if stage.name == "llm":
            self.parts.release()
            return self._obtain_llm(stage)
        self.progress(stage.name, "loading its weights")
        self.parts.hold([stage.name])
        try:
            return super().obtain(replace(stage, module=self.parts.model.stage(stage.name).eval()))
        finally:
            self._answers.clear()
            self._real_answers.clear()
            self.parts.release()

    def _export(self, stage: Stage, folder: Path, name: str) -> BuiltStage:
        """As the base does, but PyTorch answers first and leaves memory to ONNX Runtime."""
        started = self._started(stage, "exporting", name, "export_s")
        path = folder / graph_file(stage.name)
        # weights in a file of their own from the start: in the graph's they are in memory three times while it is
        # written and read (9.4 GB for CLIP's vision tower, whose weights are 1.2)
        graph = export_stage(
            stage.module, stage.spec, stage.axes, self.maker.trace_inputs(stage), path, external_data_bytes=0
        )
        exported = self._started(stage, "comparing with PyTorch", name, "validate_s")
        golden = folder / golden_file(stage.name)
        golden.parent.mkdir()
        if input_axes(stage.spec):
            golden.write_bytes(stage_npz(stage, self.maker))
        cases = self._reference(stage)
        if not input_axes(stage.spec):  # the same inputs, and a UNet or VAE of this size takes a minute for them
            golden.write_bytes(npz(StageGolden(cases[0].feeds, cases[0].outputs).arrays()))
        parity = compare_graph(path, path, stage.spec, cases, TOLERANCES[Precision.FP32])
        return BuiltStage(
            folder=folder,
            files={},
            nodes=graph.nodes,
            weight_bytes=graph.weight_bytes,
            export_s=round(exported - started, 2),
            validate_s=round(time.monotonic() - exported, 2),
            parity=parity,
        )

    def _reference(self, stage: Stage) -> list[ReferenceCase]:
        """PyTorch's answers, asked for once; the parts go with that."""
        if stage.name not in self._answers:
            self._answers[stage.name] = reference_cases(
                stage.module, stage.spec, large_cases(stage), lambda lengths: self.maker.inputs(stage.spec, lengths)
            )
            self.parts.release()
        return self._answers[stage.name]

    def _real(self, stage: Stage) -> list[ReferenceCase]:
        """As the base's, asked for once; the parts, which went with the other answers, are held again for it."""
        if stage.name not in self._real_answers:
            self.parts.hold([stage.name])
            self._real_answers[stage.name] = super()._real(stage)
            self.parts.release()
        return self._real_answers[stage.name]

    def _obtain_llm(self, stage: Stage) -> tuple[BuiltStage, bool]:
        if self.captured:
            self.progress("llm", SCAN_UNUSED)
        segments = LlmSegments(self.parts.model.llm, stage.spec, stage.axes)  # type: ignore[arg-type]
        key = self._llm_key(segments)
        name = f"{self.profile.name}-llm-{self.recipe.target}-{self.recipe.precision}"
        built, kept = self._kept_or_made(stage, name, key, lambda at: self._make_llm(stage, segments, at, name, key))
        if not kept:
            for number in range(len(segments)):  # the whole holds them now
                self.cache.discard(self._segment_name(number))
        if self.captured and built.lowered:  # said of this build and not in the cache, which serves those without, too
            built = replace(built, lowered=replace(built.lowered, remarks=(*built.lowered.remarks, SCAN_UNUSED)))
        return built, kept

    def _llm_key(self, segments: LlmSegments) -> str:
        texts = (repr(self.profile.llm), repr(segments.spec), repr(segments.axes), repr(versions()))
        digest = hashlib.sha256("\0".join(texts).encode())
        self.progress("llm", "reading all of its weights once, to know them again")
        for number in range(len(segments)):
            digest.update(segments.fingerprint(number).encode())
        for module in _CHAIN:
            digest.update(Path(str(module.__file__)).read_bytes())
        return replace(self, captured=None)._low_key(digest.hexdigest())

    def _segment_name(self, number: int) -> str:
        return f"{self.profile.name}-llm.{number:03}-{self.recipe.target}-{self.recipe.precision}"

    def _make_llm(self, stage: Stage, segments: LlmSegments, folder: Path, name: str, key: str) -> BuiltStage:
        """Segment by segment, at the precision asked for or the next that holds; then the whole, and its engine."""
        reasons: list[str] = []
        for precision in fallbacks(self.recipe.precision):
            try:
                done = self._chain(segments, precision, key)
            except ValueMismatchError as error:
                if precision is Precision.FP32:
                    raise
                reasons.append(f"{precision}: {str(error).split(';', maxsplit=1)[0]}")
                continue
            return self._whole(stage, done, folder, name, tuple(reasons))
        raise AssertionError("the ladder ends with fp32")

    def _chain(self, segments: LlmSegments, precision: Precision, key: str) -> list[BuiltStage]:
        """All segments at one precision; those that an interrupted build has finished are kept."""
        for half_cache in (True, False):
            state, done = first_state(segments), list[BuiltStage]()
            try:
                for number in range(len(segments)):
                    made = self._segment(segments, number, state, precision, key, half_cache=half_cache)
                    state, _ = ChainState.load(made.folder / STATE)
                    done.append(made)
            except CacheTooLargeError:
                continue
            return done
        raise AssertionError("a cache in fp32 is never too large for fp16")

    def _segment(
        self, segments: LlmSegments, number: int, state: ChainState, precision: Precision, key: str, *, half_cache: bool
    ) -> BuiltStage:
        own = hashlib.sha256(f"{key} {number} {precision} {half_cache}".encode()).hexdigest()
        name, where = self._segment_name(number), f"part {number + 1} of {len(segments)}"
        if found := self.cache.get(name, own):
            self.progress("llm", f"{where}: kept from an earlier build")
            return found

        def make(folder: Path) -> BuiltStage:
            return lower_segment(
                segments, number, state, precision, folder, half_cache=half_cache,
                say=lambda step: self.progress("llm", f"{where}: {step}"),
            )  # fmt: skip

        return self.cache.put(name, own, make)

    def _whole(
        self, stage: Stage, done: list[BuiltStage], folder: Path, name: str, reasons: tuple[str, ...]
    ) -> BuiltStage:
        self.progress("llm", "putting the parts together")
        started = time.monotonic()
        graph = folder / graph_file(stage.name)
        parts = [one.folder / graph_file(f"llm.{number:03}") for number, one in enumerate(done)]
        nodes, weight_bytes = merge_segments(parts, stage.spec, graph)
        half = ChainState.load(done[-1].folder / STATE)[0].half
        outer = frozenset(half & {*past_names(len(done)), *present_names(len(done))})
        check_contract(graph, stage.spec, outer)
        self._check_release(graph, stage.name)
        golden = folder / golden_file(stage.name)
        golden.parent.mkdir()
        golden.write_bytes(npz({k: v for one in done for k, v in ChainState.load(one.folder / STATE)[1].items()}))
        report = _joined([one.lowered for one in done if one.lowered], graph, reasons)
        made_s = sum(one.export_s + one.validate_s for one in done)
        if self.recipe.form is Form.ENGINE:
            report = self._build_engine(stage, graph, report, name)
        return BuiltStage(
            folder=folder,
            files={},
            nodes=nodes,
            weight_bytes=weight_bytes,
            export_s=round(sum(one.export_s for one in done), 2),
            validate_s=round(made_s - sum(one.export_s for one in done) + time.monotonic() - started, 2),
            parity=[p for one in done for p in one.parity],
            lowered=None if self.recipe.precision is Precision.FP32 and self.recipe.form is Form.ONNX else report,
        )


def _joined(reports: list[LowReport], graph: Path, reasons: tuple[str, ...]) -> LowReport:
    """One report of all segments."""
    widest = max(reports, key=lambda r: r.largest)
    kept = tuple(f"part {i + 1}: {node}" for i, r in enumerate(reports) for node in r.kept)
    return replace(
        widest, reasons=reasons, node_types=node_types(graph), kept=kept, layers=types_by_operator(graph)
    )  # fmt: skip
