"""The kiosk of under 60 lines on the Python API."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

KIOSK = Path(__file__).parents[2] / "examples" / "kiosk" / "kiosk.py"


def play(bundle: Path, picture: Path, *lines: str) -> list[str]:
    """What it says to these lines, typed one after the other."""
    command = [sys.executable, KIOSK, bundle, picture]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_it_is_short() -> None:
    assert len(KIOSK.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.slow
def test_a_visitor_s_lines(tiny_bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    told = play(
        tiny_bundle, picture, "A cat.", "", "again", "move cat 2 3", "undo", "restart", "undo", "A dragon is here."
    )
    with Image.open(picture) as drawn:
        assert drawn.size == (32, 32)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    assert any("undo" in line or "nothing" in line for line in told), told
    assert any("'dragon'" in line for line in told), told


def test_what_cannot_be_is_a_sentence(tiny_bundle: Path, tmp_path: Path) -> None:
    assert all("Traceback" not in line for line in play(tiny_bundle, tmp_path / "a.png", "again", "move cat far away"))
    assert not (tmp_path / "a.png").exists()
