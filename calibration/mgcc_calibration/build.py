"""From an fp32 bundle and calibration data to a bundle of lower precision and its report; reads top-down."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mgcc_calibration.analysis.perplexity import Wording, score_texts, story_texts
from mgcc_calibration.analysis.sensitivity import OTHER_STORIES, draw, mean_psnr_db
from mgcc_calibration.bundle.chosen_stages import ChosenStage, keep, stage_key
from mgcc_calibration.bundle.replace_stages import StageChange, replace_stages
from mgcc_calibration.bundle.writer import BundleWriter
from mgcc_calibration.cache import Cache
from mgcc_calibration.candidates.candidate import COMPETING, Candidate, CandidateOptions, Engines
from mgcc_calibration.candidates.image_judge import ImageJudge, judged_requests
from mgcc_calibration.candidates.llm_graphs import decoding, reading
from mgcc_calibration.candidates.selection import (
    Budget,
    Choice,
    Judge,
    Measurement,
    Measuring,
    choose_graphs,
    measure,
    stage_bytes,
)
from mgcc_calibration.candidates.stage_graphs import StageJob, make_candidates
from mgcc_calibration.data.requests import storyworld_requests
from mgcc_calibration.data.samples import CalibrationData
from mgcc_calibration.errors import DataError, MethodError
from mgcc_calibration.graphs.storage import graph_digests
from mgcc_calibration.quantise.observe import Samples
from mgcc_calibration.report import Report, StageOutcome, report_paths, write_report
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.bundle.manifest import decoding_graph
from mgcc_runtime.contract import DECODE, WITHOUT_WEIGHTS, StageSpec, stages
from mgcc_runtime.engines import EngineOptions
from mgcc_runtime.files import check_writable, hidden_beside
from mgcc_runtime.machine import describe_machine, installed_version
from mgcc_runtime.measure.machine_load import LoadMeter, busy_sentence
from mgcc_runtime.pipeline import Pipeline

_BUILT_WITH = ("mgcc-edge", "numpy", "onnx", "onnxruntime", "openvino")

#: What competes for the language model by default. Not activations in fixed ranges: a prompt's first position has
#: values hundreds of times as large as the others', and the search for layers to spare runs the graph once for each.
#: Nor bf16: it is OpenVINO's, which would copy the cache at each token.
_LLM = tuple(p for p in COMPETING if p not in (Precision.INT8, Precision.BF16))

#: Asked-for precision -> what competes for the language model, and for the other stages.
LEVELS: dict[Precision, tuple[tuple[Precision, ...], tuple[Precision, ...]]] = {
    Precision.AUTO: (_LLM, COMPETING),
    Precision.INT8: (
        (Precision.INT8_WEIGHTS, Precision.INT8_DYNAMIC),
        (Precision.INT8, Precision.INT8_WEIGHTS, Precision.INT8_DYNAMIC),
    ),
    Precision.INT8_WEIGHTS: ((Precision.INT8_WEIGHTS,), (Precision.INT8_WEIGHTS,)),
    Precision.INT4_WEIGHTS: ((Precision.INT4_WEIGHTS,), (Precision.INT4_WEIGHTS,)),
}

#: Called with (stage, what is being done).
Progress = Callable[[str, str], None]


@dataclass(frozen=True)
class PrecisionOptions:
    """What is asked for. `stages` empty: all; the others stay as they are."""

    asked: Precision = Precision.AUTO
    stages: tuple[str, ...] = ()
    candidates: CandidateOptions = field(default_factory=CandidateOptions)
    budget: Budget = field(default_factory=Budget)
    rounds: int = 10
    threads: int = 0
    judged: int = 48  # pictures that the fastest candidate of a stage must keep the same; 0: no judge
    images: int = 2  # stories drawn with both bundles for the report; 0: none
    tokens: int = 256  # predicted with both language models for the report; 0: none
    seed: int = 0  # of those stories

    def __post_init__(self) -> None:
        if self.asked not in LEVELS:
            raise MethodError(
                f"precision {self.asked} is no choice here, expected one of {', '.join(LEVELS)}; choose one"
            )


def build_low(
    bundle: Bundle,
    data: CalibrationData,
    writer: BundleWriter,
    options: PrecisionOptions,
    progress: Progress = lambda *_: None,
    cache: Cache[ChosenStage] | None = None,
) -> Report:
    """Build the writer's bundle from the fp32 `bundle`; the report is written beside it.

    Stage by stage: make the graphs, measure them on this machine, take what costs least in time and memory within the
    budget, which is fp32 where nothing lower keeps to it. The language model's are measured twice: for calls with
    several new positions, and for one at a time, which gets a graph of its own where that is worth its memory.
    Pictures judge what is chosen, except in a bundle of random weights, which draws noise. Stages that are in the
    `cache` are taken from there, new ones put into it.
    """
    started, out = time.monotonic(), writer.out
    for path in report_paths(out):
        check_writable(path)
    chosen = _chosen(bundle, data, options)
    judge = _judge(bundle, options, progress)
    work = hidden_beside(out, "candidates")
    shutil.rmtree(work, ignore_errors=True)
    choosing = _Choosing(bundle, data, options, judge, cache, progress)
    outcomes: dict[str, StageOutcome] = {}
    changes: dict[str, StageChange] = {}
    try:
        for spec in chosen:
            found = choosing.obtain(spec, work / spec.name)
            outcomes |= {name: outcome for name, (outcome, _) in found.items()}
            changes |= {name: change for name, (_, change) in found.items()}
        progress("bundle", "writing and comparing with golden data")
        made = replace_stages(bundle, changes, writer, options.threads)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    progress("quality", "comparing images and text with fp32")
    report = Report(
        bundle=str(out),
        source=str(bundle.root),
        profile=bundle.manifest.profile,
        asked=_asked(options),
        data=_data_summary(data),
        machine=describe_machine(),
        built_with={n: version for n in _BUILT_WITH if (version := installed_version(n))},
        bytes_before=sum(f.bytes for f in bundle.manifest.files.values()),
        bytes_after=sum(f.bytes for f in made.manifest.files.values()),
        elapsed_s=round(time.monotonic() - started, 1),
        stages=outcomes,
        image_psnr_db=_image_psnr(bundle, made, options) if options.images else None,
        perplexity=_perplexity(bundle, made, options) if options.tokens and "llm" in changes else {},
    )
    writer.commit(made.manifest)
    progress("report", str(write_report(report.to_json(), out)[1]))
    return report


def _asked(options: PrecisionOptions) -> str:
    """For the report's reader."""
    engines = options.candidates.engines
    return options.asked if engines is Engines.ALL else f"{options.asked}, in {engines} alone"


def _judge(bundle: Bundle, options: PrecisionOptions, progress: Progress) -> ImageJudge | None:
    if not options.judged or bundle.manifest.weights != "trained":
        return None
    requests = judged_requests(options.judged, options.seed)
    return ImageJudge(bundle, requests, threads=options.threads, progress=lambda text: progress("pictures", text))


def _chosen(bundle: Bundle, data: CalibrationData, options: PrecisionOptions) -> list[StageSpec]:
    """The stages to work on, their data and source checked before anything is begun."""
    every = {spec.name: spec for spec in stages(bundle.manifest.dimensions)}
    if unknown := [name for name in options.stages if name not in every]:
        raise MethodError(f"the bundle has no stage {', '.join(unknown)}; choose from {', '.join(every)}")
    if nothing := [name for name in options.stages if name in WITHOUT_WEIGHTS]:
        raise MethodError(f"stage {', '.join(nothing)} has no weights to lower and stays in fp32; leave it out")
    wanted = options.stages or {*every} - WITHOUT_WEIGHTS
    chosen = [spec for name, spec in every.items() if name in wanted]
    digests = graph_digests(bundle)
    for spec in chosen:
        precision = bundle.manifest.precision.get(spec.name)
        if precision != "fp32":
            raise MethodError(
                f"stage {spec.name} of {bundle.root} is in {precision}, expected fp32 to start from; "
                "give the bundle that `python export/build_engines.py --precision fp32` makes"
            )
        if data.manifest.graphs.get(spec.name) != digests[spec.name]:
            raise DataError(
                f"the calibration data of stage {spec.name} was captured from another graph than {bundle.root}'s; "
                "capture it again with `python -m mgcc_calibration capture`"
            )
        data.check(spec)
    return chosen


@dataclass(frozen=True)
class _Choosing:
    """What each stage's choice is made with."""

    bundle: Bundle
    data: CalibrationData
    options: PrecisionOptions
    judge: ImageJudge | None
    cache: Cache[ChosenStage] | None
    progress: Progress

    def obtain(self, spec: StageSpec, folder: Path) -> dict[str, ChosenStage]:
        """What becomes of each of the stage's uses, from the cache if that has them all."""
        source, options, cache = self._source(spec), self.options, self.cache
        judged = self.judge.identity if self.judge else ""
        settings = repr((options.asked, options.candidates, options.budget, options.rounds, options.threads, judged))
        names = list(self._uses(spec))
        key = stage_key(spec.name, source, self.data, settings) if cache else ""
        if cache:
            stored = {name: cache.get(f"{name}-{options.asked}", key) for name in names}
            if all(stored.values()):
                self.progress(spec.name, "kept from an earlier build")
                return {name: entry for name, entry in stored.items() if entry is not None}
        found = {}
        for name, (outcome, candidate) in self._choose(spec, folder).items():
            assert candidate.path is not None
            change = StageChange(candidate.path, candidate.engine.value, candidate.precision.value)
            chosen = outcome, change
            found[name] = keep(cache, f"{name}-{options.asked}", key, chosen) if cache else chosen
        return found

    def _choose(self, spec: StageSpec, folder: Path) -> dict[str, tuple[StageOutcome, Candidate]]:
        """The choice for each of the stage's uses, and the graph that it fell on."""
        options, manifest, judge = self.options, self.bundle.manifest, self.judge
        lower = LEVELS[options.asked][0 if spec.name == "llm" else 1]
        precisions = tuple(dict.fromkeys((Precision.FP32, *lower)))  # fp32 is the yardstick and the way back
        settings = replace(options.candidates, context=manifest.dimensions.context)
        job = StageJob(spec, self._source(spec), self._samples(spec), folder)
        candidates = make_candidates(job, precisions, settings, lambda text: self.progress(spec.name, text))
        load, measured = LoadMeter(), dict[str, list[Measurement]]()
        judges: dict[str, Judge | None] = {}
        for name, some in self._uses(spec).items():
            self.progress(name, "measuring")
            # words are no picture, so what decodes them is not judged
            judges[name] = None if judge is None or name == DECODE else lambda i: judge.share(spec, candidates[i])
            least_db = options.budget.floor_db(name, judged=judges[name] is not None)
            how = Measuring(least_db, options.rounds, options.threads, manifest.default_steps)
            measured[name] = measure(spec, candidates, some, how)
        others_cores = load.others_cores()
        if told := busy_sentence({"the measuring": others_cores}):
            self.progress(spec.name, told)
        choices = choose_graphs(measured, options.budget, judges, lower=options.asked != Precision.AUTO)
        return {
            name: (_outcome(choice, candidates[choice.place], job.source, others_cores), candidates[choice.place])
            for name, choice in choices.items()
        }

    def _uses(self, spec: StageSpec) -> dict[str, Samples]:
        """What a stage is used for, each with its samples and a graph to choose: the language model has two uses."""
        samples = self._samples(spec)
        if spec.name != "llm":
            return {spec.name: samples}
        uses = {spec.name: reading(samples), DECODE: decoding(samples)}
        found = {name: some for name, some in uses.items() if any(True for _ in some())}
        return found if spec.name in found else {spec.name: samples}

    def _samples(self, spec: StageSpec) -> Samples:
        return lambda: self.data.samples(spec.name)

    def _source(self, spec: StageSpec) -> Path:
        return self.bundle.file(self.bundle.manifest.stages[spec.name].file)


def _outcome(choice: Choice, candidate: Candidate, source: Path, others_cores: float | None) -> StageOutcome:
    assert candidate.path is not None
    return StageOutcome(
        choice=choice,
        method=candidate.note,
        quantised=candidate.quantised,
        kept=dict(candidate.kept),
        bytes_before=stage_bytes(source),
        bytes_after=stage_bytes(candidate.path),
        others_cores=others_cores,
    )


def _data_summary(data: CalibrationData) -> dict[str, Any]:
    """The data's manifest without its list of files, and its size."""
    manifest = data.manifest
    values = {k: v for k, v in manifest.to_json().items() if k not in ("stages", "graphs", "schema")}
    samples = {stage: len(entries) for stage, entries in manifest.stages.items()}
    return values | {"bytes": sum(map(manifest.bytes_of, manifest.stages)), "samples": samples}


def _image_psnr(before: Bundle, after: Bundle, options: PrecisionOptions) -> float:
    """Mean PSNR in dB of whole images, the new bundle's against the old one's; stories that ranges did not see."""
    requests = storyworld_requests(options.images, options.seed + OTHER_STORIES).requests
    images = []
    for bundle in (before, after):
        with Pipeline(bundle, EngineOptions(options.threads)) as pipeline:
            images.append(draw(pipeline, requests, None))
    return mean_psnr_db(images[1], images[0])


def _perplexity(before: Bundle, after: Bundle, options: PrecisionOptions) -> dict[str, float]:
    """Of held-back stories, with both bundles' language models."""
    wording = Wording(story_texts(8, options.seed), options.tokens, options.threads)
    # token by token, so by the graph for that where there is one
    entries = [(bundle, decoding_graph(bundle.manifest)) for bundle in (before, after)]
    old, new = (score_texts(b, b.file(e.file), wording, e.engine) for b, e in entries)
    return {
        "before": old.perplexity, "after": new.perplexity, "agreement": old.agreement(new), "tokens": float(old.tokens),
    }  # fmt: skip
