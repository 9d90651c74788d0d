"""What is measured beside the ratios: a dialogue's growth, cold starts, memory, and what an installation weighs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from mgcc_benchmarks.bootstrap import Score
from mgcc_benchmarks.peers_client import ROOT, PeerError, Worker
from mgcc_benchmarks.peers_compare import Rules
from mgcc_benchmarks.peers_plan import FIGURES, Peer
from mgcc_benchmarks.peers_ratio import mean_score, paired_ratio
from mgcc_benchmarks.peers_setup import Place, absence, installed_mb
from mgcc_benchmarks.peers_work import Amounts
from mgcc_benchmarks.peers_worker import WorkerSpec
from mgcc_runtime.cold_start import start_cold
from mgcc_runtime.story import read_story

Say = Callable[[str], None]
Found = dict[str, dict[str, Any]]

STARTS = 5  # each is a process that loads everything


def measure_figures(
    place: Place, work: Path, rules: Rules, amounts: Amounts, names: Collection[str], say: Say
) -> tuple[Found, dict[str, str]]:
    """The figures among `names` that can be measured, and why the others cannot."""
    asked = [figure for figure in FIGURES if figure.name in names]
    skipped = {f.name: why for f in asked if f.theirs is not None and (why := absence(f.theirs, place))}
    wanted = {f.name for f in asked} - set(skipped)
    scores: dict[str, Score] = {}
    if "dialogue_turn_10_against_2" in wanted:
        scores["dialogue_turn_10_against_2"] = _dialogue(place, work, rules, say)
    if wanted & {"cold_start_s", "peak_memory_mb"}:
        scores |= _our_starts(place, work, rules, amounts, say)
    if wanted & {"cold_start_reference_s", "peak_memory_reference_mb"}:
        scores |= _reference_starts(place, work, rules, say)
    if "import_s" in wanted:
        scores["import_s"] = mean_score([_import_s() for _ in range(rules.rounds)])
    if "runtime_install_mb" in wanted:
        scores["runtime_install_mb"] = Score(round(installed_mb(place), 1), None)
    units = {f.name: {"unit": f.unit, "aim": f.aim} for f in asked}
    return {f.name: {**scores[f.name].to_json(), **units[f.name]} for f in asked if f.name in wanted}, skipped


def _dialogue(place: Place, work: Path, rules: Rules, say: Say) -> Score:
    say("dialogues")
    spec = WorkerSpec("ours.dialogue", str(work), rules.threads, {"bundle": str(place.bundle.root)})
    with Worker(Path(sys.executable), spec) as worker:
        found = worker.outputs()
    return paired_ratio(found["early_ms"].tolist(), found["later_ms"].tolist())


def _our_starts(place: Place, work: Path, rules: Rules, amounts: Amounts, say: Say) -> dict[str, Score]:
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
        "cold_start_s": mean_score([f["total"] / 1e3 for f in found]),
        "peak_memory_mb": mean_score([f["peak_rss_mb"] or 0.0 for f in found]),
    }


def _reference_starts(place: Place, work: Path, rules: Rules, say: Say) -> dict[str, Score]:
    """The reference's start to its first image: a worker's, which loads and draws once."""
    manifest, seconds, memory_mb = place.bundle.manifest, [], []
    spec = WorkerSpec("mgcc_ref.turn", str(work), rules.threads, {}, manifest.profile, manifest.weights)
    starts = min(rules.rounds, STARTS)
    for i in range(starts):
        say(f"the reference's cold start {i + 1} of {starts}")
        start_s = time.monotonic()
        with Worker(place.python(Peer.REFERENCE), spec) as worker:
            worker.run_ms(0.0)
            seconds.append(time.monotonic() - start_s)
            memory_mb.append(worker.peak_rss_mb() or 0.0)
    return {"cold_start_reference_s": mean_score(seconds), "peak_memory_reference_mb": mean_score(memory_mb)}


def _import_s() -> float:
    """Seconds that `import mgcc_runtime` takes in a new process, the interpreter's own start left out."""
    code = "import time; t = time.perf_counter(); import mgcc_runtime; print(time.perf_counter() - t)"
    search = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=search, check=False)
    if done.returncode:
        raise PeerError(f"`import mgcc_runtime` failed ({done.stderr.strip()[-200:]}); run `make setup`")
    return float(done.stdout)
