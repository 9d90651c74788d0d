"""Rounds and figures of a comparison: who goes first, how busy the machine was, intervals, and what fails."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mgcc_benchmarks.peers.cli import main
from mgcc_benchmarks.peers.comparison import Rules, time_in_turns
from mgcc_benchmarks.peers.figures import Group, measure_figures
from mgcc_benchmarks.peers.quiet_machine import BusyError, require_quiet
from mgcc_benchmarks.peers.ratio import LEAST_DRAWN, drop_weak_interval, mean_score, paired_ratio
from mgcc_benchmarks.peers.results import Results
from mgcc_benchmarks.peers.work import Amounts
from mgcc_runtime.errors import EngineError
from mgcc_runtime.measure.machine_load import LoadMeter, busy_sentence, own_s

QUICK = ["--rounds", "3", "--warm-up", "1", "--threads", "1", "--least-ms", "1", "--words", "2", "--dialogues", "1",
         "--prompt-tokens", "20", "--next-tokens", "4"]  # fmt: skip


@pytest.fixture
def spinner() -> Iterator[int]:
    """A process that uses a core."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_load_counts_others_and_not_our_workers(spinner: int) -> None:
    everybody, but_ours, start_s = LoadMeter(), LoadMeter((spinner,)), time.monotonic()
    while (spun_s := own_s((spinner,)) - own_s()) < 0.5:  # of processor time, however busy the machine is
        assert time.monotonic() - start_s < 120
        time.sleep(0.05)
    with_spinner, without, spent_s = everybody.others_cores(), but_ours.others_cores(), time.monotonic() - start_s
    assert with_spinner is not None and without is not None
    assert (with_spinner - without) * spent_s == pytest.approx(spun_s, abs=0.15)


def test_quietness_has_a_limit() -> None:
    require_quiet(0.05)
    with pytest.raises(BusyError, match=r"use 0\.5 of"):
        require_quiet(0.5)
    with pytest.raises(BusyError, match="does not tell its load"):
        require_quiet(None)


def test_who_is_warned_of() -> None:
    assert busy_sentence({"cold": 0.1, "latency": None}) == ""
    said = busy_sentence({"cold": 0.05, "latency": 0.5, "scale": 1.25})
    assert said.startswith(
        "other programs used 0.50 cores during latency, 1.25 cores during scale, expected at most 0.1"
    )


class Recorded:
    """A side that notes when it runs instead of working."""

    pid = 0

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def run_ms(self, least_ms: float) -> float:
        self.log.append(self.name)
        return float(len(self.log))


def test_who_goes_first_changes_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgcc_benchmarks.peers.comparison._REST_S", 0.0)
    log: list[str] = []
    ours, theirs = Recorded("ours", log), Recorded("theirs", log)
    times, others = time_in_turns(ours, theirs, Rules(4, 1, 1, 0.0), print)  # type: ignore[arg-type]
    assert log == ["ours", "theirs", "theirs", "ours"] * 2 + ["ours", "theirs"]
    assert times == [(4.0, 3.0), (5.0, 6.0), (8.0, 7.0), (9.0, 10.0)]  # ours before theirs, whoever went first
    assert others is None or others >= 0


def test_few_measurements_have_no_interval() -> None:
    score = mean_score([1.0, 2.0, 3.0])
    assert score.ci95 is not None
    assert drop_weak_interval(score, LEAST_DRAWN - 1).to_json() == {"value": 2.0, "ci95": [None, None]}
    assert drop_weak_interval(score, LEAST_DRAWN) == score
    assert Amounts().dialogues >= LEAST_DRAWN


def test_a_figure_that_fails_lets_the_others_go_on() -> None:
    def broken() -> dict[str, object]:
        raise EngineError("no start")

    groups = (
        Group(("cold_start_s", "peak_memory_mb"), broken),  # type: ignore[arg-type]
        Group(("import_s",), lambda: {"import_s": mean_score([0.25])}),
    )
    found = list(measure_figures(groups, {"cold_start_s", "import_s"}))
    assert found[0] == ({}, {"cold_start_s": "no start"})
    row = found[1][0]["import_s"]
    assert (row["value"], row["unit"], row["aim"]) == (0.25, "s", 0.3)
    assert "others_cores" in row


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    assert Results(tmp_path / "p.json", {}, 0.0).kept() == "nothing was measured to the end, so nothing is kept"


def test_ratio_of_known_samples() -> None:
    score = paired_ratio([10.0, 20.0, 5.0], [20.0, 40.0, 10.0])
    assert score.to_json() == {"value": 2.0, "ci95": [2.0, 2.0]}
    mixed = paired_ratio([1.0, 1.0], [2.0, 8.0])
    assert mixed.value == 4.0  # geometric: the arithmetic mean of the ratios would be 5
    back = paired_ratio([2.0, 8.0], [1.0, 1.0])
    assert back.value == pytest.approx(1 / 4.0)


def test_interval_covers_the_truth_and_pairing_narrows_it() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(150):
        machine = np.exp(rng.normal(0, 0.5, 20))  # slows both sides of a round
        ours = machine * np.exp(rng.normal(0, 0.05, 20))
        theirs = 1.5 * machine * np.exp(rng.normal(0, 0.05, 20))
        low, high = paired_ratio(ours.tolist(), theirs.tolist(), seed=trial).ci95 or (0.0, 0.0)
        covered += low <= 1.5 <= high
    assert 0.85 <= covered / 150 <= 1.0
    unpaired = paired_ratio(ours.tolist(), rng.permutation(theirs).tolist()).ci95
    assert unpaired is not None and math.log(unpaired[1] / unpaired[0]) > 3 * math.log(high / low)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([1.0, 0.0], [1.0, 1.0])])
def test_times_that_do_not_pair_are_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="as many of each, all above 0"):
        paired_ratio(ours, theirs)


def test_a_busy_machine_is_refused(
    tiny_bundle: Path, tmp_path: Path, spinner: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--bundle", str(tiny_bundle), *QUICK, "--out", str(tmp_path / "p.json")]) == 2
    said = capsys.readouterr().err
    assert "other programs use" in said and "--allow-busy" in said and "not quotable" in said
    assert list(tmp_path.iterdir()) == []
