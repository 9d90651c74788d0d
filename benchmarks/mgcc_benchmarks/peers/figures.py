"""Figures beside the ratios: a dialogue's growth, cold starts, memory, and the size of an installation."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgcc_benchmarks.bootstrap import Score
from mgcc_benchmarks.peers.client import ROOT, PeerError, Worker
from mgcc_benchmarks.peers.comparison import Rules
from mgcc_benchmarks.peers.install import ALONE, extras_of, installed_mb
from mgcc_benchmarks.peers.plan import FIGURES, Peer
from mgcc_benchmarks.peers.ratio import drop_weak_interval, mean_score, paired_ratio
from mgcc_benchmarks.peers.setup import absence
from mgcc_benchmarks.peers.work import Amounts
from mgcc_benchmarks.peers.worker import WorkerSpec
from mgcc_benchmarks.peers.workspace import Place
from mgcc_runtime.errors import MgccError
from mgcc_runtime.measure.cold_start import start_cold
from mgcc_runtime.measure.machine_load import LoadMeter
from mgcc_runtime.story import read_story

Say = Callable[[str], None]
Rows = dict[str, dict[str, Any]]
Scores = dict[str, Score]

STARTS = 10  # each is a process that loads everything


@dataclass(frozen=True)
class Group:
    """Figures that are measured together, by the name of each; `timed`: load by other programs changes them."""

    names: tuple[str, ...]
    measure: Callable[[], Scores]
    timed: bool = True


def absent_figures(place: Place, names: Collection[str]) -> dict[str, str]:
    """Which of the figures among `names` cannot be measured, and why."""
    asked = [figure for figure in FIGURES if figure.name in names]
    return {f.name: why for f in asked if f.theirs is not None and (why := absence(f.theirs, place))}


def measure_figures(groups: Sequence[Group], names: Collection[str]) -> Iterator[tuple[Rows, dict[str, str]]]:
    """The figures among `names`, group by group: what was found, or why each failed."""
    told = {f.name: {"unit": f.unit, "aim": f.aim} for f in FIGURES}
    for group in groups:
        wanted = [name for name in group.names if name in names]
        if not wanted:
            continue
        meter = LoadMeter()
        try:
            scores = group.measure()
        except MgccError as error:
            yield {}, dict.fromkeys(wanted, str(error))
            continue
        load = {"others_cores": meter.others_cores()} if group.timed else {}
        yield {name: {**scores[name].to_json(), **told[name], **load} for name in wanted}, {}


def figure_groups(place: Place, work: Path, rules: Rules, amounts: Amounts, say: Say) -> tuple[Group, ...]:
    """How each figure is measured."""
    return (
        Group(("dialogue_turn_10_against_2",), lambda: _dialogue(place, work, rules, say)),
        Group(("cold_start_s", "peak_memory_mb"), lambda: _our_starts(place, work, rules, amounts, say)),
        Group(
            ("cold_start_reference_s", "peak_memory_reference_mb"), lambda: _reference_starts(place, work, rules, say)
        ),
        Group(("import_s",), lambda: {"import_s": _mean([_import_s() for _ in range(rules.rounds)])}),
        Group(("runtime_install_mb", "runtime_install_onnxruntime_mb"), lambda: _installs(place), timed=False),
    )


def _mean(values: Sequence[float]) -> Score:
    return drop_weak_interval(mean_score(values), len(values))


def _installs(place: Place) -> Scores:
    folder = place.folder(Peer.RUNTIME)
    return {
        "runtime_install_mb": Score(round(installed_mb(folder, extras_of(place.bundle.manifest)), 1), None),
        "runtime_install_onnxruntime_mb": Score(round(installed_mb(folder, ALONE), 1), None),
    }


def _dialogue(place: Place, work: Path, rules: Rules, say: Say) -> Scores:
    say("dialogues")
    spec = WorkerSpec("ours.dialogue", str(work), rules.threads, {"bundle": str(place.bundle.root)})
    with Worker(Path(sys.executable), spec) as worker:
        found = worker.outputs()
    early, later = found["early_ms"].tolist(), found["later_ms"].tolist()
    return {"dialogue_turn_10_against_2": drop_weak_interval(paired_ratio(early, later), len(early))}


def _our_starts(place: Place, work: Path, rules: Rules, amounts: Amounts, say: Say) -> Scores:
    parts, starts = read_story(work / "story.json"), min(rules.rounds, STARTS)
    steps, found = place.bundle.manifest.default_steps, []
    for i in range(starts):
        say(f"cold start {i + 1} of {starts}")
        found.append(
            start_cold(
                place.bundle.root, parts,
                steps=steps, words=amounts.words, seed=amounts.seed, threads=rules.threads,
            )
        )  # fmt: skip
    return {
        "cold_start_s": _mean([f["total"] / 1e3 for f in found]),
        "peak_memory_mb": _mean([f["peak_rss_mb"] or 0.0 for f in found]),
    }


def _reference_starts(place: Place, work: Path, rules: Rules, say: Say) -> Scores:
    """The reference's start to its first image: a worker's, which loads and draws once."""
    seconds, memory_mb = [], []
    spec = WorkerSpec("mgcc_ref.turn", str(work), rules.threads, {}, place.profile, place.weights)
    starts = min(rules.rounds, STARTS)
    for i in range(starts):
        say(f"the reference's cold start {i + 1} of {starts}")
        start_s = time.monotonic()
        with Worker(place.python(Peer.REFERENCE), spec) as worker:
            worker.run_ms(0.0)
            seconds.append(time.monotonic() - start_s)
            memory_mb.append(worker.peak_rss_mb() or 0.0)
    return {"cold_start_reference_s": _mean(seconds), "peak_memory_reference_mb": _mean(memory_mb)}


def _import_s() -> float:
    """Seconds that `import mgcc_runtime` takes in a new process, the interpreter's own start left out."""
    code = "import time; t = time.perf_counter(); import mgcc_runtime; print(time.perf_counter() - t)"
    search = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=search, check=False)
    if done.returncode:
        raise PeerError(f"`import mgcc_runtime` failed ({done.stderr.strip()[-200:]}); run `make setup`")
    return float(done.stdout)
