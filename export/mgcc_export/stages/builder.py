"""One stage, finished for a target: exported and checked in fp32, lowered, built; each part kept in the cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import Timeout

from mgcc_calibration.cache import Cache
from mgcc_calibration.graphs import storage
from mgcc_calibration.source_digest import source_digest
from mgcc_export.errors import EngineRefusedError
from mgcc_export.graphs.reference import ReferenceCase
from mgcc_export.precision.activation_scan import Feeds
from mgcc_export.precision.ladder import Evidence, Lowered, Quantise, lower_stage, types_by_operator
from mgcc_export.precision.report import LowReport
from mgcc_export.progress import Progress
from mgcc_export.stages.answers import Answers
from mgcc_export.stages.cache import BuiltStage, stage_key
from mgcc_export.stages.golden import npz
from mgcc_export.stages.peak_memory import with_peak
from mgcc_export.stages.stage import Stage
from mgcc_export.targets import Form, Recipe, calibrated_tolerance, fallbacks
from mgcc_export.tensorrt.builder import EngineJob, command_of, profiles_of
from mgcc_export.tensorrt.process import run_engine_job
from mgcc_export.tensorrt.release_check import check_release
from mgcc_ref.config import Profile
from mgcc_ref.precision import Precision
from mgcc_runtime.contract import WITHOUT_WEIGHTS
from mgcc_runtime.engines.tensorrt.record import read_record, record_path
from mgcc_runtime.files import copy_file
from mgcc_runtime.measure.golden import StageGolden
from mgcc_runtime.names import EngineName, engine_file, golden_file, graph_file

#: Packages and modules whose code decides what a lowered stage's files hold, besides the fp32 stage's own.
_LOWERING = ("mgcc_export.precision", "mgcc_export.tensorrt", "mgcc_runtime.engines.tensorrt.record")

NOT_CAPTURED = "--scan has no inputs of this stage, which no captured request called: its weights alone have 8 bits"


@dataclass(frozen=True)
class StageBuilder:
    """Builds the stages of one model for one recipe."""

    profile: Profile
    recipe: Recipe
    answers: Answers
    cache: Cache[BuiltStage]
    progress: Progress
    captured: Path | None = None  # calibration data to scan besides the example inputs

    def obtain(self, stage: Stage) -> tuple[BuiltStage, bool]:
        """The accepted stage, and whether the cache had it."""
        key, name = stage_key(stage, self.profile, Precision.FP32), f"{self.profile.name}-{stage.name}"
        low_name, low_key = f"{name}-{self.recipe.target}-{self.recipe.precision}", self.low_key(key)

        def export() -> tuple[BuiltStage, bool]:
            return self.kept_or_made(
                stage, f"{name}-{Precision.FP32}", key, lambda at: self._export(stage, at, f"{name}-{Precision.FP32}")
            )

        if self.recipe.precision is Precision.FP32 and self.recipe.form is Form.ONNX:
            built, cached = export()
            self.check_release(built.folder / graph_file(stage.name), stage.name)
            return built, cached
        if found := self.cache.get(low_name, low_key):  # without the fp32 stage, which may be gone
            return found, True
        base, _ = export()
        return self.kept_or_made(stage, low_name, low_key, lambda at: self._lower(stage, base, at, low_name))

    def kept_or_made(
        self, stage: Stage, name: str, key: str, make: Callable[[Path], BuiltStage]
    ) -> tuple[BuiltStage, bool]:
        """The cache's entry, and whether it was there; of two builds that want it, one makes it."""
        lock = self.cache.lock(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.progress(stage.name, "waiting for another build, which has it in hand")
            lock.acquire()
        try:
            found = self.cache.get(name, key)
            return (found, True) if found else (self.cache.put(name, key, lambda at: with_peak(make, at)), False)
        finally:
            lock.release()

    def low_key(self, base_key: str) -> str:
        """The fp32 stage's key with all that decides what is made of it."""
        digest = hashlib.sha256(f"{base_key} {self.recipe.target} {self.recipe.precision}".encode())
        if self.recipe.form is Form.ENGINE:
            digest.update(importlib.metadata.version(distribution(self.recipe.library)).encode())
        if self.captured:
            digest.update((self.captured / "calibration.json").read_bytes())
            digest.update(source_digest("mgcc_calibration").encode())
        digest.update(source_digest(*_LOWERING).encode())
        return digest.hexdigest()

    def _started(self, stage: Stage, doing: str, name: str, *field: str) -> float:
        """Report a step with its duration of the last time, which stands in `field` of the entry `name`; the time."""
        last = self.cache.last_s(name, *field)
        self.progress(stage.name, doing + (f" ({last:.0f} s the last time)" if last else ""))
        return time.monotonic()

    def _export(self, stage: Stage, folder: Path, name: str) -> BuiltStage:
        """Export, validate and give golden data; nothing that failed validation reaches the cache."""
        started = self._started(stage, "exporting", name, "export_s")
        path, golden = folder / graph_file(stage.name), folder / golden_file(stage.name)
        golden.parent.mkdir()
        graph = self.answers.export(stage, path)
        exported = self._started(stage, "comparing with PyTorch", name, "validate_s")
        parity = self.answers.check(stage, path, golden)
        return BuiltStage(
            folder=folder,
            files={},
            nodes=graph.nodes,
            weight_bytes=graph.weight_bytes,
            export_s=round(exported - started, 2),
            validate_s=round(time.monotonic() - exported, 2),
            parity=parity,
        )

    def _lower(self, stage: Stage, base: BuiltStage, folder: Path, name: str) -> BuiltStage:
        wanted = self.wanted(stage)
        doing = (
            "comparing with PyTorch" if wanted is Precision.FP32 else f"lowering to {wanted} and comparing with PyTorch"
        )
        started = self._started(stage, doing, name, "validate_s")
        graph = folder / graph_file(stage.name)
        lowered, report, weights, checked = self._lowest_that_builds(stage, base.folder / graph.name, graph, name)
        golden = folder / golden_file(stage.name)
        if case := lowered.golden:
            golden.parent.mkdir()
            golden.write_bytes(npz(StageGolden(case.feeds, case.outputs).arrays()))
        else:
            copy_file(base.folder / golden_file(stage.name), golden)
        return replace(
            base,
            folder=folder,
            files={},
            nodes=sum(lowered.nodes.values()),
            weight_bytes=weights,
            export_s=base.export_s,
            validate_s=round(checked - started, 2),
            parity=lowered.parity,
            lowered=report,
        )

    def wanted(self, stage: Stage) -> Precision:
        """The precision that is asked for in this stage."""
        return Precision.FP32 if stage.name in WITHOUT_WEIGHTS else self.recipe.precision

    def _lowest_that_builds(
        self, stage: Stage, source: Path, graph: Path, name: str
    ) -> tuple[Lowered, LowReport, int, float]:
        """The stage at the lowest precision whose values hold and whose engine the compiler takes.

        For a device that builds its engines itself, whose oldest parser reads it. With its report, the bytes of its
        weights and when its values were found right.
        """
        cases, refused = self.answers.cases(stage), list[str]()
        wanted = self.wanted(stage)
        while True:
            lowered = self.lower_graph(stage, source, graph, cases, wanted)
            report, checked = _report(lowered), time.monotonic()
            report = replace(report, reasons=(*refused, *report.reasons))
            weights = storage.weight_bytes(storage.load_graph(graph))
            try:
                if self.recipe.form is not Form.ENGINE:
                    self.check_release(graph, stage.name)
                    return lowered, replace(report, layers=types_by_operator(graph)), weights, checked
                return lowered, self.build_engine(stage, graph, report, name), weights, checked
            except EngineRefusedError as error:
                wider = fallbacks(lowered.precision)[1:]
                if not wider:
                    raise
                refused.append(f"{lowered.precision}: {error}")
                wanted = wider[0]

    def check_release(self, graph: Path, stage: str) -> None:
        """EngineRefusedError unless the oldest TensorRT that the target names reads the graph."""
        if self.recipe.oldest_release is not None:
            check_release(graph, stage, self.recipe.oldest_release)

    def lower_graph(
        self, stage: Stage, source: Path, target: Path, cases: Sequence[ReferenceCase], wanted: Precision
    ) -> Lowered:
        """Write the fp32 graph `source` to `target` at `wanted` precision, with the captured inputs' part in it."""
        quantisers = self.quantisers(stage, source)
        real = self.answers.real(stage, self._captured(stage)) if quantisers else ()
        evidence = Evidence(cases, self._captured(stage), real)
        lowered = lower_stage(source, target, stage.spec, wanted, evidence, quantisers)
        if lowered.precision is Precision.INT8 and self._takes_ranges(stage) and not quantisers:
            lowered = replace(lowered, remarks=(*lowered.remarks, NOT_CAPTURED))
        return lowered

    def build_engine(self, stage: Stage, graph: Path, report: LowReport, name: str) -> LowReport:
        self._started(stage, "building the engine", name, "lowered", "engine", "seconds")
        engine = graph.with_name(engine_file(stage.name))
        job = engine_job(stage, self.recipe, graph)
        done = run_engine_job(job)
        for path in graph.parent.glob(f"{graph.name}*"):  # the engine holds the weights
            path.unlink()
        layers = read_record(engine).precision_by_layer()
        return replace(report, engine=done, layers=layers, command=" ".join(command_of(job)))

    def _captured(self, stage: Stage) -> Iterator[Feeds]:
        """Inputs that a calibration captured for this stage; it captures none of one without weights."""
        if self.captured is None or stage.name in WITHOUT_WEIGHTS:
            return
        from mgcc_calibration.data.samples import CalibrationData

        yield from CalibrationData.open(self.captured).samples(stage.name)

    def quantisers(self, stage: Stage, source: Path) -> Sequence[Quantise]:
        """For TensorRT int8 is weights and activations, where there is calibration data to take their ranges from.

        Not so for the language model, whose decode steps wait for weights alone, nor on RTX, whose int8 kernels
        take weights alone.
        """
        if self.captured is None or not self._takes_ranges(stage):
            return ()
        from mgcc_calibration.candidates.fp16_twin import static_quantisers
        from mgcc_calibration.data.samples import CalibrationData

        data, limit = CalibrationData.open(self.captured), calibrated_tolerance(stage.name).relative_l2
        return static_quantisers(source, stage.spec, data, limit) if stage.name in data.manifest.stages else ()

    def _takes_ranges(self, stage: Stage) -> bool:
        spared = stage.name == "llm" or stage.name in WITHOUT_WEIGHTS
        return self.recipe.on_device and self.captured is not None and not spared


def engine_job(stage: Stage, recipe: Recipe, graph: Path) -> EngineJob:
    """What the builder has to do for one stage's graph. The command to rebuild it is the bundle's: `rebuild.py`."""
    engine = graph.with_name(engine_file(stage.name))
    return EngineJob(
        library=recipe.library,
        stage=stage.name,
        onnx=str(graph),
        engine=str(engine),
        record=str(record_path(engine)),
        profiles=profiles_of(stage.spec, stage.axes),
        rebuild="",
    )


def distribution(library: str) -> str:
    """The package that brings a builder's Python module."""
    return "tensorrt_rtx_cu13_bindings" if library == EngineName.TENSORRT_RTX else EngineName.TENSORRT


def _report(lowered: Lowered) -> LowReport:
    scan = lowered.scan
    return LowReport(
        precision=lowered.precision.value,
        reasons=lowered.reasons,
        node_types=lowered.nodes,
        scanned=scan.runs,
        largest=scan.largest,
        largest_value=scan.largest_value,
        kept=tuple(f"{e.node} ({e.operator}, {e.largest:.3g})" for e in scan.excesses),
        half_cache=lowered.half_cache,
        wider=lowered.wider,
        remarks=lowered.remarks,
        tolerance=lowered.tolerance,
    )
