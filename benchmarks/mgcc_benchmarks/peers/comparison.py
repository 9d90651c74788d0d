"""One comparison: both sides loaded, checked against each other, warmed up, and timed in turns."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mgcc_benchmarks.bootstrap import Score
from mgcc_benchmarks.peers.client import Worker
from mgcc_benchmarks.peers.parity import check_parity, limits_of
from mgcc_benchmarks.peers.plan import Comparison, Ours, Work
from mgcc_benchmarks.peers.ratio import paired_ratio
from mgcc_benchmarks.peers.worker import WorkerSpec
from mgcc_benchmarks.peers.workspace import Place
from mgcc_runtime.measure.machine_load import LoadMeter

#: Idle threads spin after a run: ONNX Runtime's for 40 ms, OpenMP's of some libraries for up to 200 ms.
_REST_S = 0.25

Say = Callable[[str], None]


@dataclass(frozen=True)
class Rules:
    """How long and how often. `least_ms`: one side of a round lasts at least that; short works are repeated."""

    rounds: int
    warm_up: int
    threads: int
    least_ms: float


@dataclass(frozen=True)
class Compared:
    """The result of a comparison; times of one work by round, in ms."""

    ratio: Score
    ours_ms: tuple[float, ...]
    theirs_ms: tuple[float, ...]
    parity: dict[str, float]
    versions: dict[str, dict[str, str]]
    others_cores: float | None  # on average while it ran

    def to_json(self) -> dict[str, Any]:
        return {
            **self.ratio.to_json(),
            "ours_ms": round(float(np.median(self.ours_ms)), 4),
            "theirs_ms": round(float(np.median(self.theirs_ms)), 4),
            "parity": self.parity,
            "versions": self.versions,
            "others_cores": self.others_cores,
        }


def worker_specs(comparison: Comparison, place: Place, fast: Path | None, work: Path, threads: int) -> list[WorkerSpec]:
    """The specifications of both sides, ours first."""
    bundle = fast if comparison.ours is Ours.FEW_STEPS else place.bundle.root
    mine = {"graphs": str(place.gligen)} if comparison.work is Work.GLIGEN else {"bundle": str(bundle)}
    shared: dict[str, Any] = {
        "work": str(work), "threads": threads, "profile": place.profile, "weights": place.weights,
    }  # fmt: skip
    return [
        WorkerSpec(side=f"ours.{comparison.work}", files=mine, **shared),
        WorkerSpec(side=f"{comparison.theirs}.{comparison.work}", files=place.files(comparison.theirs), **shared),
    ]


def compare(comparison: Comparison, place: Place, fast: Path | None, work: Path, rules: Rules, say: Say) -> Compared:
    """Run one comparison; PeerError if a side fails or the outputs differ."""
    our_spec, their_spec = worker_specs(comparison, place, fast, work, rules.threads)
    say(f"{comparison.name}: loading")
    with Worker(Path(sys.executable), our_spec) as ours, Worker(place.python(comparison.theirs), their_spec) as theirs:
        say(f"{comparison.name}: do both give the same?")
        limits = limits_of(comparison, place.bundle.manifest)
        parity = check_parity(comparison, ours.outputs(), theirs.outputs(), limits)
        times, others_cores = time_in_turns(ours, theirs, rules, lambda text: say(f"{comparison.name}: {text}"))
        ours_ms, theirs_ms = zip(*times, strict=True)
        return Compared(
            paired_ratio(ours_ms, theirs_ms),
            ours_ms,
            theirs_ms,
            parity,
            {"ours": ours.versions, comparison.theirs.value: theirs.versions},
            others_cores,
        )


def time_in_turns(
    ours: Worker, theirs: Worker, rules: Rules, say: Say
) -> tuple[list[tuple[float, float]], float | None]:
    """Milliseconds of (ours, theirs) in each counted round, and the cores that others used meanwhile.

    Who goes first changes from round to round: what the first leaves behind (heat, caches) meets both sides alike.
    """
    times: list[tuple[float, float]] = []
    meter = LoadMeter((ours.pid, theirs.pid))
    for i in range(rules.warm_up + rules.rounds):
        if i == rules.warm_up:
            meter = LoadMeter((ours.pid, theirs.pid))
        say(f"round {i + 1 - rules.warm_up} of {rules.rounds}")
        if i % 2:
            theirs_ms, ours_ms = _rested_ms(theirs, rules), _rested_ms(ours, rules)
        else:
            ours_ms, theirs_ms = _rested_ms(ours, rules), _rested_ms(theirs, rules)
        if i >= rules.warm_up:
            times.append((ours_ms, theirs_ms))
    return times, meter.others_cores()


def _rested_ms(side: Worker, rules: Rules) -> float:
    """One side's turn, once the other's threads sleep."""
    time.sleep(_REST_S)
    return side.run_ms(rules.least_ms)
