"""`python benchmarks/serve.py` on the tiny bundle, with few of everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mgcc_benchmarks.serving.figures import Figure, percentile, table

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "serve.py"
FIGURES = {
    "server and page, beyond loading", "errors but stated limits", "memory after the first 20", "cancel by DELETE",
    "cancel by a client that leaves", "redraw of a moved box, of a turn", "HTTP over the runtime, a picture",
    "pictures lost by kill -9 and restart", "the extra `serve` on the disk",
}  # fmt: skip


@pytest.mark.slow
def test_every_figure_is_measured(tiny_bundle: Path, tmp_path: Path) -> None:
    """Those that do not depend on how busy the machine is hold here, too."""
    out = tmp_path / "serve.json"
    options = ["--requests", "24", "--clients", "3", "--rounds", "4", "--threads", "1", "--out", str(out), "--json"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--bundle", str(tiny_bundle), *options],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1) and done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads(out.read_text(encoding="utf-8"))
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert figures.keys() == FIGURES
    assert done.returncode == (0 if all(figure["holds"] for figure in found["figures"]) else 1)
    for name in ("errors but stated limits", "pictures lost by kill -9 and restart", "the extra `serve` on the disk"):
        assert figures[name]["holds"], figures[name]
    assert figures["cancel by DELETE"]["value"] > 0 and 0 < figures["redraw of a moved box, of a turn"]["value"] < 2


@pytest.mark.parametrize(("share", "value"), [(0.99, 99), (0.5, 50), (0.01, 1), (1.0, 100)])
def test_percentiles(share: float, value: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value


def test_what_does_not_hold_is_said() -> None:
    _, held, not_held = table([Figure("a", 1, 1, "ms", "").to_json(), Figure("b", 1.01, 1, "ms", "").to_json()])
    assert "holds" in held and "DOES NOT HOLD" in not_held
