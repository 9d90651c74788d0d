"""`mgcc bench`: how long a request takes on this machine, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mgcc_runtime.bundle import Bundle
from mgcc_runtime.engines import EngineOptions
from mgcc_runtime.errors import OptionError
from mgcc_runtime.golden import request_golden
from mgcc_runtime.machine import describe_machine, peak_rss_mb
from mgcc_runtime.pipeline import Pipeline
from mgcc_runtime.prompt import Part
from mgcc_runtime.results import Result


@dataclass(frozen=True)
class Workload:
    """The request that is timed; the same seed each time, so that each run does the same work."""

    parts: tuple[Part, ...]
    steps: int
    words: int
    seed: int = 0


@dataclass(frozen=True)
class Summary:
    """Milliseconds over all runs."""

    mean: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Summary:
        p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99))
        return cls(*(round(float(v), 3) for v in (np.mean(milliseconds), p50, p90, p99)))


def golden_workload(bundle: Bundle, steps: int | None, words: int | None) -> Workload:
    """The bundle's own golden request with other steps or words where they are given."""
    golden = request_golden(bundle)
    return Workload(
        golden.parts,
        bundle.manifest.default_steps if steps is None else steps,
        golden.words if words is None else words,
    )


def bench(
    path: str | Path,
    *,
    runs: int = 10,
    warmup: int = 2,
    threads: int = 0,
    steps: int | None = None,
    words: int | None = None,
    parts: Sequence[Part] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Time `runs` requests after `warmup` ones; `parts`: another request than the bundle's golden one.

    Returns {"machine", "bundle", "request", "runs", "warmup", "load_ms", "stages_ms": {stage: Summary},
    "total_ms", "per_call_ms": {"unet_step", "llm_token"}, "peak_rss_mb"}.
    """
    if runs < 1 or warmup < 0:
        raise OptionError(f"runs is {runs} and warm-up {warmup}, expected at least 1 and 0; change them")
    machine, start_s = describe_machine(), time.perf_counter()
    bundle = Bundle.open(path)
    workload = golden_workload(bundle, steps, words)
    if parts is not None:
        workload = Workload(tuple(parts), workload.steps, workload.words)
    with Pipeline(bundle, EngineOptions(threads)) as pipeline:
        load_ms = (time.perf_counter() - start_s) * 1e3
        evaluations = pipeline.schedule.table(workload.steps).evaluations
        results: list[Result] = []
        for i in range(warmup + runs):
            progress(f"warm-up {i + 1} of {warmup}" if i < warmup else f"run {i + 1 - warmup} of {runs}")
            done = pipeline.generate(workload.parts, seed=workload.seed, steps=workload.steps, words=workload.words)
            if i >= warmup:
                results.append(done)
    manifest = bundle.manifest
    return {
        "machine": {**machine, "threads": threads or machine["cores"]},
        "bundle": {
            "profile": manifest.profile,
            "target": manifest.target,
            "weights": manifest.weights,
            "precision": dict(manifest.precision),
            "engines": {name: stage.engine for name, stage in manifest.stages.items()},
        },
        "request": {
            "texts": sum(isinstance(part, str) for part in workload.parts),
            "images": sum(not isinstance(part, str) for part in workload.parts),
            "steps": workload.steps,
            "words": workload.words,
            "text_tokens": len(results[0].text_tokens),
        },
        "runs": runs,
        "warmup": warmup,
        "load_ms": round(load_ms, 3),
        "stages_ms": {name: asdict(s) for name, s in _summaries(results).items() if name != "total"},
        "total_ms": asdict(_summaries(results)["total"]),
        "per_call_ms": _per_call(results, evaluations),
        "peak_rss_mb": peak_rss_mb(),
    }


def _summaries(results: Sequence[Result]) -> dict[str, Summary]:
    return {name: Summary.of([r.timings[name] for r in results]) for name in results[0].timings}


def _per_call(results: Sequence[Result], evaluations: int) -> dict[str, dict[str, float]]:
    found = {"unet_step": asdict(Summary.of([r.timings["unet"] / evaluations for r in results]))}
    if tokens := len(results[0].text_tokens):
        found["llm_token"] = asdict(Summary.of([r.timings["llm_decode"] / tokens for r in results]))
    return found
