"""From an fp32 bundle and calibration data to a bundle of lower precision and its report; reads top-down."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mgcc_calibration.candidates import make_candidates
from mgcc_calibration.choose import Budget, Choice, Judge, Measurement, choose_graphs, measure, stage_bytes
from mgcc_calibration.data import CalibrationData, Feeds
from mgcc_calibration.errors import DataError, MethodError
from mgcc_calibration.forms import Candidate, CandidateOptions, Engines, StagePrecision
from mgcc_calibration.graph import graph_digests
from mgcc_calibration.image_judge import ImageJudge, judged_requests
from mgcc_calibration.llm_candidates import decoding, reading
from mgcc_calibration.low_bundle import StageChange, write_low_bundle
from mgcc_calibration.observe import Samples
from mgcc_calibration.perplexity import score_texts, story_texts
from mgcc_calibration.report import Report, StageOutcome, report_paths, write_report
from mgcc_calibration.requests import storyworld_requests
from mgcc_calibration.sensitivity import OTHER_STORIES, draw, mean_psnr_db
from mgcc_calibration.stage_store import StageStore, stage_key
from mgcc_runtime.bundle import Bundle
from mgcc_runtime.contract import DECODE, WITHOUT_WEIGHTS, StageSpec, stages
from mgcc_runtime.engines import EngineOptions
from mgcc_runtime.files import check_writable, hidden_beside
from mgcc_runtime.load import LoadMeter, busy_sentence
from mgcc_runtime.machine import describe_machine, installed_version
from mgcc_runtime.manifest import decoding_graph
from mgcc_runtime.pipeline import Pipeline

_BUILT_WITH = ("mgcc-edge", "numpy", "onnx", "onnxruntime", "openvino")

#: What competes for the language model by default. Not activations in fixed ranges: a prompt's first position has
#: values hundreds of times as large as the others', and the search for layers to spare runs the graph once for each.
#: Nor bf16: it is OpenVINO's, which would copy the cache at each token.
_LLM = tuple(p for p in StagePrecision if p not in (StagePrecision.INT8, StagePrecision.BF16))

#: Asked-for precision -> what competes for the language model, and for the other stages.
LEVELS: dict[str, tuple[tuple[StagePrecision, ...], tuple[StagePrecision, ...]]] = {
    "auto": (_LLM, tuple(StagePrecision)),
    "int8": (
        (StagePrecision.INT8_WEIGHTS, StagePrecision.INT8_DYNAMIC),
        (StagePrecision.INT8, StagePrecision.INT8_WEIGHTS, StagePrecision.INT8_DYNAMIC),
    ),
    "int8-weights": ((StagePrecision.INT8_WEIGHTS,), (StagePrecision.INT8_WEIGHTS,)),
    "int4-weights": ((StagePrecision.INT4_WEIGHTS,), (StagePrecision.INT4_WEIGHTS,)),
}

#: Called with (stage, what is being done).
Progress = Callable[[str, str], None]


@dataclass(frozen=True)
class BuildOptions:
    """What is asked for. `stages` empty: all; the others stay as they are."""

    asked: str = "auto"
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
            raise MethodError(f"precision {self.asked!r} is unknown, expected one of {', '.join(LEVELS)}; choose one")


def build_low(
    bundle: Bundle,
    data: CalibrationData,
    out: Path,
    options: BuildOptions,
    progress: Progress = lambda *_: None,
    store: StageStore | None = None,
) -> Report:
    """Build `out` from the fp32 `bundle`; the report is written beside it.

    Stage by stage: make the graphs, measure them on this machine, take what costs least in time and memory within the
    budget, which is fp32 where nothing lower keeps to it. The language model's are measured twice: for calls with
    several new positions, and for one at a time, which gets a graph of its own where that is worth its memory.
    Pictures judge what is chosen, except in a bundle of random weights, which draws noise. Stages that are in the
    `store` are taken from there, new ones put into it.
    """
    started = time.monotonic()
    for path in report_paths(out):
        check_writable(path)
    chosen = _chosen(bundle, data, options)
    judge = _judge(bundle, options, progress)
    work = hidden_beside(out.resolve(), "candidates")
    shutil.rmtree(work, ignore_errors=True)
    outcomes: dict[str, StageOutcome] = {}
    changes: dict[str, StageChange] = {}
    try:
        for spec in chosen:
            found = _obtain(spec, bundle, data, work / spec.name, options, judge, store, progress)
            outcomes |= {name: outcome for name, (outcome, _) in found.items()}
            changes |= {name: change for name, (_, change) in found.items()}
        progress("bundle", "writing and comparing with golden data")
        made = write_low_bundle(bundle, changes, out, options.threads)
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
    write_report(report.to_json(), out)
    progress("report", str(report_paths(out)[1]))
    return report


def _asked(options: BuildOptions) -> str:
    """For the report's reader."""
    engines = options.candidates.engines
    return options.asked if engines is Engines.ALL else f"{options.asked}, in {engines} alone"


def _judge(bundle: Bundle, options: BuildOptions, progress: Progress) -> ImageJudge | None:
    if not options.judged or bundle.manifest.weights != "trained":
        return None
    requests = judged_requests(options.judged, options.seed)
    return ImageJudge(bundle, requests, threads=options.threads, progress=lambda text: progress("pictures", text))


def _chosen(bundle: Bundle, data: CalibrationData, options: BuildOptions) -> list[StageSpec]:
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


def _uses(spec: StageSpec, data: CalibrationData) -> dict[str, Samples]:
    """What a stage is used for, each with its samples and a graph to choose: the language model has two uses."""

    def samples() -> Iterator[Feeds]:
        return data.samples(spec.name)

    if spec.name != "llm":
        return {spec.name: samples}
    uses = {spec.name: reading(samples), DECODE: decoding(samples)}
    found = {name: some for name, some in uses.items() if any(True for _ in some())}
    return found if spec.name in found else {spec.name: samples}


def _choose_stage(
    spec: StageSpec, bundle: Bundle, data: CalibrationData, folder: Path,
    options: BuildOptions, judge: ImageJudge | None, progress: Progress,
) -> dict[str, tuple[StageOutcome, Candidate]]:  # fmt: skip
    """The choice for each of the stage's uses, and the graph that it fell on."""
    lower = LEVELS[options.asked][0 if spec.name == "llm" else 1]
    precisions = tuple(dict.fromkeys((StagePrecision.FP32, *lower)))  # fp32 is the yardstick and the way back

    def samples() -> Iterator[Feeds]:
        return data.samples(spec.name)

    source, steps = bundle.file(bundle.manifest.stages[spec.name].file), bundle.manifest.default_steps
    settings = replace(options.candidates, context=bundle.manifest.dimensions.context)
    candidates = make_candidates(
        spec, source, samples, folder, precisions, settings, lambda text: progress(spec.name, text)
    )
    load, measured = LoadMeter(), dict[str, list[Measurement]]()
    judges: dict[str, Judge | None] = {}
    for name, some in _uses(spec, data).items():
        progress(name, "measuring")
        # words are no picture, so what decodes them is not judged
        judges[name] = None if judge is None or name == DECODE else lambda i: judge.share(spec, candidates[i])
        measured[name] = measure(
            spec, candidates, some, least_db=options.budget.floor_db(name, judged=judges[name] is not None),
            rounds=options.rounds, threads=options.threads, steps=steps,
        )  # fmt: skip
    others_cores = load.others_cores()
    if told := busy_sentence({"the measuring": others_cores}):
        progress(spec.name, told)
    choices = choose_graphs(measured, options.budget, judges, lower=options.asked != "auto")
    return {
        name: (_outcome(choice, candidates[choice.place], source, others_cores), candidates[choice.place])
        for name, choice in choices.items()
    }


def _obtain(
    spec: StageSpec, bundle: Bundle, data: CalibrationData, folder: Path,
    options: BuildOptions, judge: ImageJudge | None, store: StageStore | None, progress: Progress,
) -> dict[str, tuple[StageOutcome, StageChange]]:  # fmt: skip
    """What becomes of each of the stage's uses, from the store if that has them all."""
    source = bundle.file(bundle.manifest.stages[spec.name].file)
    judged = judge.identity if judge else ""
    settings = repr((options.asked, options.candidates, options.budget, options.rounds, options.threads, judged))
    names = list(_uses(spec, data))
    key = stage_key(spec.name, source, data, settings) if store else ""
    if store:
        stored = {name: store.get(f"{name}-{options.asked}", key) for name in names}
        if all(stored.values()):
            progress(spec.name, "kept from an earlier build")
            return {name: entry for name, entry in stored.items() if entry is not None}
    found = {}
    chosen = _choose_stage(spec, bundle, data, folder, options, judge, progress)
    for name, (outcome, candidate) in chosen.items():
        assert candidate.path is not None
        change = StageChange(candidate.path, candidate.engine.value, candidate.precision.value)
        found[name] = outcome, store.put(f"{name}-{options.asked}", key, outcome, change) if store else change
    return found


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


def _image_psnr(before: Bundle, after: Bundle, options: BuildOptions) -> float:
    """Mean PSNR in dB of whole images, the new bundle's against the old one's; stories that ranges did not see."""
    requests = storyworld_requests(options.images, options.seed + OTHER_STORIES).requests
    images = []
    for bundle in (before, after):
        with Pipeline(bundle, EngineOptions(options.threads)) as pipeline:
            images.append(draw(pipeline, requests, None))
    return mean_psnr_db(images[1], images[0])


def _perplexity(before: Bundle, after: Bundle, options: BuildOptions) -> dict[str, float]:
    """Of held-back stories, with both bundles' language models."""
    texts = story_texts(8, options.seed)
    # token by token, so by the graph for that where there is one
    entries = [(bundle, decoding_graph(bundle.manifest)) for bundle in (before, after)]
    old, new = (
        score_texts(b, b.file(e.file), texts, engine=e.engine, most=options.tokens, threads=options.threads)
        for b, e in entries
    )
    return {
        "before": old.perplexity, "after": new.perplexity, "agreement": old.agreement(new), "tokens": float(old.tokens),
    }  # fmt: skip
