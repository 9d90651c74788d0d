"""Every command of the project runs through `mgcc_runtime.console`: one way with streams, errors and exit codes."""

from __future__ import annotations

import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED

ROOT = Path(__file__).parents[2]
#: Module -> what stands before its sentences, and options that are refused.
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "mgcc_runtime.cli": ("mgcc", ["bench", "--bundle", "none", "--threads", "-5"]),
    "mgcc_export.cli": ("error", ["--profile", "tiny", "--weights", "none"]),
    "mgcc_export.device_build": ("error", ["--bundle", "none", "--out", "out"]),
    "mgcc_calibration.cli": ("error", ["capture", "--bundle", "none", "--out", "out", "--threads", "-5"]),
    "mgcc_benchmarks.quality_cli": ("quality.py", ["--bundle", "none", "--items", "0"]),
    "mgcc_benchmarks.latency_cli": ("latency.py", ["--bundle", "none", "--runs", "0"]),
    "mgcc_benchmarks.decisions_cli": ("decisions.py", ["--bundle", "none", "--out", "out.json"]),
    "mgcc_benchmarks.planner_cli": ("planner.py", ["--out", "x.txt"]),
    "mgcc_benchmarks.grounders_cli": ("grounders.py", ["--out", "x.txt"]),
    "mgcc_benchmarks.ablation_cli": ("ablation.py", ["--out", "x.txt"]),
    "mgcc_benchmarks.peers_cli": ("peers.py", ["--bundle", "none", "--threads", "-5"]),
}


def run(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, **streams: Any) -> int:
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    code: int = importlib.import_module(module).main(arguments)
    monkeypatch.undo()
    return code


def without_reader() -> Any:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="utf-8")


def full() -> Any:
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", encoding="utf-8")


def test_none_is_left_out() -> None:
    """Every module with a command line of its own, but for the trainer and the tools, which run from a checkout."""
    found = {
        path.relative_to(folder).with_suffix("").as_posix().replace("/", ".")
        for folder in (ROOT / name for name in ("runtime", "export", "calibration", "benchmarks"))
        for path in folder.rglob("*.py")
        if "arguments: Sequence[str] | None = None) -> int:" in path.read_text(encoding="utf-8")
    }
    assert found - {"mgcc_runtime.console", "mgcc_runtime.launch"} == set(COMMANDS)


@pytest.mark.parametrize("module", COMMANDS)
def test_help(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for, on each kind of standard output."""
    heard = io.StringIO()
    assert run(module, ["--help"], monkeypatch, stdout=heard) == EXIT_DONE
    assert "usage" in heard.getvalue()
    assert run(module, ["--help"], monkeypatch, stdout=without_reader()) == EXIT_DONE
    for stdout in (None, full()):
        said = io.StringIO()
        assert run(module, ["--help"], monkeypatch, stdout=stdout, stderr=said) == EXIT_FAILED
        assert "standard output cannot be written to" in said.getvalue() and "Traceback" not in said.getvalue()


@pytest.mark.parametrize("module", COMMANDS)
def test_bad_input(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence and 2, or 2 alone where it cannot be said."""
    name, refused = COMMANDS[module]
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    assert run(module, refused, monkeypatch, stderr=said) == EXIT_BAD_INPUT
    monkeypatch.chdir(tmp_path)
    last = said.getvalue().splitlines()[-1]
    assert last.startswith(f"{name}: ") and "Traceback" not in said.getvalue()
    for stderr in (None, full(), without_reader()):
        assert run(module, refused, monkeypatch, stderr=stderr) == EXIT_BAD_INPUT
        monkeypatch.chdir(tmp_path)
