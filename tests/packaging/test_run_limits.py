"""What keeps a run of the suite from waiting for ever, tried in runs of pytest of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

TWO = """
import pytest
def test_usual(): pass
@pytest.mark.slow
def test_slow(): pass
"""
HANGS = """
import threading
def test_hangs(): threading.Event().wait()
def test_next(): pass
"""
DIES = """
import os, pytest
@pytest.mark.parametrize("number", range(9))
def test_numbered(number):
    if number == 3:
        os._exit(1)
"""


def run(folder: Path, source: str, *options: str) -> str:
    (folder / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-ra", *options]
    return subprocess.run([*command, folder], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False).stdout


@pytest.mark.parametrize(("minutes", "counted"), [("60", "2 passed"), ("0", "1 passed, 1 skipped")])
def test_no_slow_test_begins_after_the_deadline(tmp_path: Path, minutes: str, counted: str) -> None:
    told = run(tmp_path, TWO, "--slow-until-min", minutes)
    assert counted in told
    assert ("slow, and the 0 minutes for slow tests are over; make test-all runs it" in told) == (minutes == "0")


def test_a_test_that_hangs_fails_alone_and_shows_where(tmp_path: Path) -> None:
    told = run(tmp_path, HANGS, "--timeout", "1")
    assert "1 failed, 1 passed" in told
    assert "threading.Event().wait()" in told


@pytest.mark.slow
def test_a_worker_that_dies_names_its_test_and_ends_the_run(tmp_path: Path) -> None:
    found = re.search(r"-m pytest (-n 2 .*)", MAKEFILE)
    assert found
    told = run(tmp_path, DIES, *found.group(1).split())
    assert re.search(r"worker 'gw\d' crashed while running '.*::test_numbered\[3\]'", told)
    assert "1 failed, 3 passed" in told
