"""Stages of a model that does not fit into memory: the parts of each are loaded when it is built, then released."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path

from mgcc_calibration.source_digest import source_digest
from mgcc_export.errors import ValueMismatchError
from mgcc_export.graphs.validate import check_contract
from mgcc_export.large.answers import PartAnswers, PartExamples
from mgcc_export.large.chain import (
    STATE,
    CacheTooLargeError,
    ChainState,
    SegmentPrecision,
    first_state,
    lower_segment,
)
from mgcc_export.large.merge import merge_segments
from mgcc_export.large.segments import LlmSegments
from mgcc_export.precision.ladder import node_types, types_by_operator
from mgcc_export.precision.report import LowReport
from mgcc_export.stages.builder import StageBuilder
from mgcc_export.stages.cache import BuiltStage, versions
from mgcc_export.stages.golden import npz
from mgcc_export.stages.stage import Stage
from mgcc_export.targets import Form, fallbacks
from mgcc_ref.llm_layers import StreamedLm
from mgcc_ref.parts import PartedModel
from mgcc_ref.precision import Precision
from mgcc_runtime.contract import past_names, present_names
from mgcc_runtime.names import golden_file, graph_file

SCAN_UNUSED = (
    "--scan was not used: a language model that is built block by block is scanned with its example inputs alone"
)

#: Packages and modules whose code decides what a segment's files hold, besides those of lowering.
_CHAIN = ("mgcc_export.large", "mgcc_ref.networks", "mgcc_ref.llm_layers")


@dataclass(frozen=True)
class LargeStageBuilder:
    """Builds with one stage's parts in memory at a time, and the language model block by block."""

    steps: StageBuilder  # of the stages that are built as others are, and what every stage's build is made of
    answers: PartAnswers

    @classmethod
    def of(cls, steps: StageBuilder, parts: PartedModel) -> LargeStageBuilder:
        """A builder with the settings of `steps`, whose answers are asked of the parts."""
        answers = PartAnswers(PartExamples(parts), parts)
        return cls(replace(steps, answers=answers), answers)

    def obtain(self, stage: Stage) -> tuple[BuiltStage, bool]:
        """The accepted stage, and whether the cache had it. The module of `stage` may be without storage."""
        parts = self.answers.parts
        if stage.name == "llm":
            parts.release()
            return self._obtain_llm(stage)
        self.steps.progress(stage.name, "loading its weights")
        parts.hold([stage.name])
        try:
            return self.steps.obtain(replace(stage, module=parts.model.stage(stage.name).eval()))
        finally:
            self.answers.forget()

    def _obtain_llm(self, stage: Stage) -> tuple[BuiltStage, bool]:
        if self.steps.captured:
            self.steps.progress("llm", SCAN_UNUSED)
        llm = self.answers.parts.model.llm
        assert isinstance(llm, StreamedLm)
        segments = LlmSegments(llm, stage.spec, stage.axes)
        key = self._llm_key(segments)
        name = f"{self.steps.profile.name}-llm-{self.steps.recipe.target}-{self.steps.recipe.precision}"
        built, kept = self.steps.kept_or_made(
            stage, name, key, lambda at: self._make_llm(stage, segments, at, name, key)
        )
        if not kept:
            for number in range(len(segments)):  # the whole holds them now
                self.steps.cache.discard(self._segment_name(number))
        # said of this build and not in the cache, which serves those without, too
        if self.steps.captured and built.lowered:
            built = replace(built, lowered=replace(built.lowered, remarks=(*built.lowered.remarks, SCAN_UNUSED)))
        return built, kept

    def _llm_key(self, segments: LlmSegments) -> str:
        texts = (repr(self.steps.profile.llm), repr(segments.spec), repr(segments.axes), repr(versions()))
        digest = hashlib.sha256("\0".join(texts).encode())
        self.steps.progress("llm", "reading all of its weights once, to know them again")
        for number in range(len(segments)):
            digest.update(segments.fingerprint(number).encode())
        digest.update(source_digest(*_CHAIN).encode())
        return replace(self.steps, captured=None).low_key(digest.hexdigest())

    def _segment_name(self, number: int) -> str:
        return f"{self.steps.profile.name}-llm.{number:03}-{self.steps.recipe.target}-{self.steps.recipe.precision}"

    def _make_llm(self, stage: Stage, segments: LlmSegments, folder: Path, name: str, key: str) -> BuiltStage:
        """Build all segments at the lowest precision in tolerance, then merge them and build the engine."""
        reasons: list[str] = []
        for precision in fallbacks(self.steps.recipe.precision):
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
                    made = self._segment(segments, number, state, SegmentPrecision(precision, half_cache), key)
                    state, _ = ChainState.load(made.folder / STATE)
                    done.append(made)
            except CacheTooLargeError:
                continue
            return done
        raise AssertionError("a cache in fp32 is never too large for fp16")

    def _segment(
        self, segments: LlmSegments, number: int, state: ChainState, wanted: SegmentPrecision, key: str
    ) -> BuiltStage:
        own = hashlib.sha256(f"{key} {number} {wanted}".encode()).hexdigest()
        name, where = self._segment_name(number), f"part {number + 1} of {len(segments)}"
        if found := self.steps.cache.get(name, own):
            self.steps.progress("llm", f"{where}: kept from an earlier build")
            return found

        def make(folder: Path) -> BuiltStage:
            return lower_segment(
                segments, number, state, wanted, folder, lambda step: self.steps.progress("llm", f"{where}: {step}")
            )

        return self.steps.cache.put(name, own, make)

    def _whole(
        self, stage: Stage, done: list[BuiltStage], folder: Path, name: str, reasons: tuple[str, ...]
    ) -> BuiltStage:
        self.steps.progress("llm", "putting the parts together")
        started = time.monotonic()
        graph = folder / graph_file(stage.name)
        parts = [one.folder / graph_file(f"llm.{number:03}") for number, one in enumerate(done)]
        nodes, weight_bytes = merge_segments(parts, stage.spec, graph)
        half = ChainState.load(done[-1].folder / STATE)[0].half
        outer = frozenset(half & {*past_names(len(done)), *present_names(len(done))})
        check_contract(graph, stage.spec, outer)
        self.steps.check_release(graph, stage.name)
        golden = folder / golden_file(stage.name)
        golden.parent.mkdir()
        golden.write_bytes(npz({k: v for one in done for k, v in ChainState.load(one.folder / STATE)[1].items()}))
        report = _joined([one.lowered for one in done if one.lowered], graph, reasons)
        made_s = sum(one.export_s + one.validate_s for one in done)
        if self.steps.recipe.form is Form.ENGINE:
            report = self.steps.build_engine(stage, graph, report, name)
        return BuiltStage(
            folder=folder,
            files={},
            nodes=nodes,
            weight_bytes=weight_bytes,
            export_s=round(sum(one.export_s for one in done), 2),
            validate_s=round(made_s - sum(one.export_s for one in done) + time.monotonic() - started, 2),
            parity=[p for one in done for p in one.parity],
            lowered=None
            if self.steps.recipe.precision is Precision.FP32 and self.steps.recipe.form is Form.ONNX
            else report,
        )


def _joined(reports: list[LowReport], graph: Path, reasons: tuple[str, ...]) -> LowReport:
    """One report of all segments."""
    widest = max(reports, key=lambda r: r.largest)
    kept = tuple(f"part {i + 1}: {node}" for i, r in enumerate(reports) for node in r.kept)
    return replace(
        widest, reasons=reasons, node_types=node_types(graph), kept=kept, layers=types_by_operator(graph)
    )  # fmt: skip
