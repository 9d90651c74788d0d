"""`mgcc bench`: how long a request takes on this machine, stage by stage, cold and warm, alone and in a dialogue."""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mgcc_runtime.bundle.folder import Bundle, sha256_of
from mgcc_runtime.denoise import Schedule
from mgcc_runtime.engines import Compiled, EngineOptions
from mgcc_runtime.errors import OptionError
from mgcc_runtime.machine import describe_machine, peak_rss_mb
from mgcc_runtime.measure.bench_parts import Say, Summary, Workload, draw, measure_dialogue, measure_scale
from mgcc_runtime.measure.bench_table import loads_of
from mgcc_runtime.measure.cold_start import PHASES, start_cold
from mgcc_runtime.measure.golden import request_golden
from mgcc_runtime.measure.machine_load import LoadMeter, busy_sentence
from mgcc_runtime.measure.power import PowerMeter, describe_clocks
from mgcc_runtime.names import MANIFEST, SCHEDULE
from mgcc_runtime.options import RUNS, STEPS, WARM_UP, WORDS, settle
from mgcc_runtime.pipeline import Pipeline
from mgcc_runtime.prompt import Part
from mgcc_runtime.results import Result

USUAL_RUNS, USUAL_WARM_UP = 30, 3
MOST_COLD_STARTS, MOST_DIALOGUES, MOST_A_POINT = 5, 10, 5  # each is a process, 20 requests or one of 19 points
WARM_UP_RULE = "the first requests after loading, of the same kind as the timed ones; none of them is counted"
PERCENTILES = (
    "linear interpolation between the ordered runs (numpy's default); p90 of fewer than 10 runs and p99 of fewer than "
    "100 are the slowest run, as as_max says"
)

_LOG = logging.getLogger(__name__)


class Measure(str, enum.Enum):
    """What is measured."""

    COLD = "cold"  # process start to first image
    LATENCY = "latency"  # one request, again and again
    DIALOGUE = "dialogue"  # turns 1 to 20 of a chat
    SCALE = "scale"  # more text, 1 to 8 objects, 1 to 8 images, several threads


@dataclass(frozen=True)
class Plan:
    """How much is measured; each part takes as many runs of `runs` as its most allows."""

    runs: int = USUAL_RUNS
    warm_up: int = USUAL_WARM_UP
    measures: tuple[Measure, ...] = tuple(Measure)

    def __post_init__(self) -> None:
        settle(self, RUNS, WARM_UP)
        if not self.measures:
            raise OptionError(f"nothing is to be measured; choose from {', '.join(m.value for m in Measure)}")


def parse_measures(text: str) -> tuple[Measure, ...]:
    """Names separated by commas, such as "latency,dialogue"; OptionError for an unknown one."""
    known = {m.value: m for m in Measure}
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise OptionError(f"--parts has {', '.join(unknown)}, expected some of {', '.join(known)}; choose from them")
    return tuple(m for m in Measure if m.value in names)


@dataclass(frozen=True)
class Asked:
    """The request that is measured: the bundle's golden one, but for what is given here."""

    steps: int | None = None
    words: int | None = None
    parts: Sequence[Part] | None = None

    def workload(self, bundle: Bundle) -> Workload:
        """With what was left out; OptionError."""
        golden = request_golden(bundle)
        return Workload(
            golden.parts if self.parts is None else tuple(self.parts),
            bundle.manifest.default_steps if self.steps is None else STEPS.check(self.steps),
            golden.words if self.words is None else WORDS.check(self.words),
        )


_ALL_OF_IT, _GOLDEN = Plan(), Asked()


def bench(
    path: str | Path,
    plan: Plan = _ALL_OF_IT,
    asked: Asked = _GOLDEN,
    *,
    threads: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure a bundle.

    Returns {"machine", "bundle", "request", "runs", "warmup", "warmup_rule", "percentiles"}, and of what was asked:
    cold: "cold_start"; latency: "load_ms", "stages_ms" {stage: Summary}, "total_ms", "per_call_ms", "tokens_per_s",
    "peak_rss_mb", "power" (None without tegrastats); dialogue: "dialogue"; scale: "scale". "others_cores", in each of
    these objects and for latency beside "load_ms", is what other programs used meanwhile (None where the system does
    not say); more than a tenth of a core is logged as a warning.
    """
    options = EngineOptions(threads, Compiled.KEPT)
    machine, start_s = describe_machine(), time.perf_counter()
    bundle = Bundle.open(path)
    workload = asked.workload(bundle)
    Schedule.load(bundle.file(SCHEDULE)).table(workload.steps)  # refused here, and not by a process of its own
    spent_s = time.perf_counter() - start_s
    found: dict[str, Any] = {
        "machine": {**machine, "threads": options.threads or machine["cores"], "clocks": describe_clocks()},
        "bundle": _describe_bundle(bundle),
    }
    timings: dict[str, Any] = {}
    if Measure.COLD in plan.measures:  # before this process fills the memory
        starts = min(plan.runs, MOST_COLD_STARTS)
        timings["cold_start"] = _metered(lambda: _measure_cold(bundle, workload, options.threads, starts, progress))
    start_s = time.perf_counter()
    with Pipeline(bundle, options) as pipeline:
        load_ms = (spent_s + time.perf_counter() - start_s) * 1e3
        found["request"] = _describe_request(pipeline, workload)
        if Measure.LATENCY in plan.measures:
            measured = _metered(lambda: _measure_latency(pipeline, workload, plan, progress))
            timings |= {"load_ms": round(load_ms, 3), **measured}
            found["request"]["text_tokens"] = timings.pop("text_tokens")
        if Measure.DIALOGUE in plan.measures:
            rounds = min(plan.runs, MOST_DIALOGUES)
            timings["dialogue"] = _metered(lambda: measure_dialogue(pipeline, workload, rounds, progress))
        if Measure.SCALE in plan.measures:
            points = min(plan.runs, MOST_A_POINT)
            timings["scale"] = _metered(lambda: measure_scale(pipeline, workload, points, progress))
    if warning := busy_sentence(loads_of(timings)):
        _LOG.warning(warning)
    rules = {"warmup_rule": WARM_UP_RULE, "percentiles": PERCENTILES}
    return {**found, "runs": plan.runs, "warmup": plan.warm_up, **rules, **timings}


def _metered(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured, and how many cores others used meanwhile."""
    meter = LoadMeter()
    found = measure()
    return {**found, "others_cores": meter.others_cores()}


def _describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """The manifest holds the hash of every file, so its own hash stands for the whole bundle."""
    manifest = bundle.manifest
    return {
        "sha256": sha256_of(bundle.root / MANIFEST),
        "profile": manifest.profile,
        "target": manifest.target,
        "weights": manifest.weights,
        "precision": {name: graph.precision for name, graph in manifest.graphs().items()},
        "engines": {name: graph.engine for name, graph in manifest.graphs().items()},
        "image_px": manifest.dimensions.image_px,
        "built_with": dict(manifest.built_with),
    }


def _describe_request(pipeline: Pipeline, workload: Workload) -> dict[str, Any]:
    return {
        "texts": sum(isinstance(part, str) for part in workload.parts),
        "images": sum(not isinstance(part, str) for part in workload.parts),
        "prompt_tokens": pipeline.prompts.build(workload.parts).length,
        "steps": workload.steps,
        "words": workload.words,
    }


def _measure_cold(bundle: Bundle, workload: Workload, threads: int, starts: int, say: Say) -> dict[str, Any]:
    found = []
    for i in range(starts):
        say(f"cold start {i + 1} of {starts}")
        found.append(
            start_cold(
                bundle.root, workload.parts,
                steps=workload.steps, words=workload.words, seed=workload.seed, threads=threads,
            )
        )  # fmt: skip
    return {
        "starts": starts,
        "phases_ms": {phase: asdict(Summary.of([f[phase] for f in found])) for phase in PHASES},
        "total_ms": asdict(Summary.of([f["total"] for f in found])),
        "first_total_ms": found[0]["total"],  # the one with the coldest files
        "peak_rss_mb": max(f["peak_rss_mb"] for f in found) if found[0]["peak_rss_mb"] is not None else None,
    }


def _measure_latency(pipeline: Pipeline, workload: Workload, plan: Plan, say: Say) -> dict[str, Any]:
    for i in range(plan.warm_up):
        say(f"warm-up {i + 1} of {plan.warm_up}")
        draw(pipeline, workload)
    results = []
    with PowerMeter() as meter:
        for i in range(plan.runs):
            say(f"run {i + 1} of {plan.runs}")
            results.append(draw(pipeline, workload))
    summaries = {name: asdict(Summary.of([r.timings[name] for r in results])) for name in results[0].timings}
    evaluations = pipeline.schedule.table(workload.steps).evaluations
    prompt_tokens = pipeline.prompts.build(workload.parts).length
    return {
        "text_tokens": len(results[0].text_tokens),
        "stages_ms": {name: summary for name, summary in summaries.items() if name != "total"},
        "total_ms": summaries["total"],
        "per_call_ms": _per_call(results, evaluations),
        "tokens_per_s": _token_rates(results, prompt_tokens),
        "peak_rss_mb": peak_rss_mb(),
        "power": meter.summary(plan.runs),
    }


def _per_call(results: Sequence[Result], evaluations: int) -> dict[str, dict[str, Any]]:
    found = {"unet_step": asdict(Summary.of([r.timings["unet"] / evaluations for r in results]))}
    if tokens := len(results[0].text_tokens):
        found["llm_token"] = asdict(Summary.of([r.timings["llm_decode"] / tokens for r in results]))
    return found


def _token_rates(results: Sequence[Result], prompt_tokens: int) -> dict[str, float]:
    """Tokens a second at the median time; no "decode" where nothing was written."""

    def rate(tokens: int, stage: str) -> float:
        return round(tokens / Summary.of([r.timings[stage] for r in results]).p50 * 1e3, 2)

    found = {"prefill": rate(prompt_tokens, "llm_prefill")}
    if tokens := len(results[0].text_tokens):
        found["decode"] = rate(tokens, "llm_decode")
    return found
