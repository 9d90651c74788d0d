"""Commands of the exporter, the calibration and the benchmarks at work, each standard stream closed, full, in ASCII
or without a reader: what they make is kept. Those of `mgcc` are in tests/runtime/test_standard_streams.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mgcc_benchmarks import decisions_cli, latency_cli, planner_cli, quality_cli
from mgcc_calibration import cli as calibration_cli
from mgcc_export import cli as export_cli
from mgcc_runtime.errors import EXIT_DONE, EXIT_FAILED
from tests.stream_states import LOSING, STATES, sound

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Work:
    """A short run of a command; `BUNDLE` and `CACHE` stand for folders."""

    main: Callable[[list[str]], int]
    arguments: tuple[str, ...]
    kept: str = ""  # a JSON file that is there afterwards
    asked: bool = False  # whether standard output is all that was asked for


TINY = ("--profile", "tiny", "--target", "cpu", "--precision", "fp32", "--cache", "CACHE")
RUNS = {
    "build_engines": Work(export_cli.main, (*TINY, "--stages", "solver", "--out", "made"), "made/manifest.json"),
    "build_engines, estimate": Work(export_cli.main, (*TINY, "--estimate", "--out", "made"), asked=True),
    "capture": Work(
        calibration_cli.main,
        ("capture", "--bundle", "BUNDLE", "--out", "data", "--requests", "1", "--words", "1"),
        "data/calibration.json",
    ),
    "planner": Work(planner_cli.main, ("--profile", "tiny", "--out", "plan.json"), "plan.json"),
    "planner, JSON": Work(planner_cli.main, ("--profile", "tiny", "--json"), asked=True),
    "quality": Work(
        quality_cli.main, ("--bundle", "BUNDLE", "--items", "1", "--words", "0", "--out", "q.json"), "q.json"
    ),
    "decisions": Work(decisions_cli.main, ("--bundle", "BUNDLE", "--items", "2", "--out", "d.json"), "d.json"),
    "latency": Work(
        latency_cli.main,
        ("--bundle", "BUNDLE", "--parts", "latency", "--runs", "1", "--warm-up", "0", "--out", "l.json"),
        "l.json",
    ),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.fixture
def run(
    tiny_bundle: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, dict[str, str]]]]:
    """Run some work in an empty folder with these streams: the exit code, and what streams that keep it were told."""
    monkeypatch.chdir(tmp_path)
    places = {"BUNDLE": str(tiny_bundle), "CACHE": str(cache)}
    with ExitStack() as stack:

        def run_it(work: Work, **states: Callable[[ExitStack], Any]) -> tuple[int, dict[str, str]]:
            streams = {name: make(stack) for name, make in states.items()}
            with pytest.MonkeyPatch.context() as patch:
                for name, stream in streams.items():
                    patch.setattr(sys, name, stream)
                code = work.main([places.get(word, word) for word in work.arguments])
            told = {}
            for name, stream in streams.items():
                if stream is not None and stream.readable():
                    stream.seek(0)
                    told[name] = stream.read()
            return code, told

        yield run_it


def check_kept(work: Work) -> None:
    if work.kept:
        json.loads(Path(work.kept).read_text(encoding="utf-8"))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", RUNS)
def test_standard_output(run: Callable[..., tuple[int, dict[str, str]]], name: str, state: str) -> None:
    work = RUNS[name]
    code, told = run(work, stdout=STATES[state], stderr=sound)
    check_kept(work)
    assert code == (EXIT_FAILED if work.asked and state in LOSING else EXIT_DONE)
    assert "Traceback" not in told["stderr"] and "Exception ignored" not in told["stderr"]
    if work.asked and state in LOSING:
        assert "standard output cannot be written to" in told["stderr"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", RUNS)
def test_standard_error_changes_nothing(run: Callable[..., tuple[int, dict[str, str]]], name: str, state: str) -> None:
    work = RUNS[name]
    code, told = run(work, stdout=sound, stderr=STATES[state])
    check_kept(work)
    assert code == EXIT_DONE
    assert told["stdout"]
