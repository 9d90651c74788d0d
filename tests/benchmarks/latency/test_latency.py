"""`python benchmarks/latency.py` on the tiny bundle: the object, its file, its picture, and what the process loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mgcc_benchmarks.latency.chart import chart, panels
from mgcc_benchmarks.latency.cli import main

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "latency.py"
QUICK = ["--runs", "2", "--warm-up", "1", "--steps", "1", "--words", "1", "--threads", "1"]


@pytest.mark.slow
def test_script_measures_everything(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "latency.json"
    command = [sys.executable, SCRIPT, "--bundle", tiny_bundle, *QUICK, "--out", out, "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads(out.read_text())
    assert found["runs"] == 2
    assert found["bundle"]["profile"] == "tiny"
    assert found["total_ms"]["p50"] <= found["total_ms"]["p90"] <= found["total_ms"]["p99"]
    assert len(found["scale"]["objects"]) == 4  # all that the profile has places for
    assert found["dialogue"]["turns"] >= 10
    assert found["dialogue"]["turn_10_against_2"] > 0
    headings = [panel.heading for panel in panels(found)]
    for start in ("Turns of a dialogue", "A request by objects", "A request by images", "Requests at once, no batch"):
        (heading,) = [heading for heading in headings if heading.startswith(start)]
        assert ": grows as n^" in heading
    assert all("others_cores" in part for part in (found, found["cold_start"], found["dialogue"], found["scale"]))
    with Image.open(out.with_suffix(".png")) as picture:
        assert np.asarray(picture).std() > 10
        assert len(panels(found)) == 7


def test_parts_and_table(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "l.json"
    assert main(["--bundle", str(tiny_bundle), *QUICK, "--parts", "latency", "--out", str(out)]) == 0
    table = capsys.readouterr().out
    assert "unet_step" in table and str(out) in table
    assert [panel.heading for panel in panels(json.loads(out.read_text()))] == ["One warm request, 1 steps"]


def test_a_device_without_matplotlib_keeps_the_figures(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib" or n.endswith("latency.chart")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "l.json"
    assert main(["--bundle", str(tiny_bundle), *QUICK, "--parts", "latency", "--out", str(out)]) == 0
    assert f"no chart: matplotlib is not installed, the figures are in {out}" in capsys.readouterr().err
    assert json.loads(out.read_text())["runs"] == 2 and not out.with_suffix(".png").exists()


def test_same_object_as_mgcc_bench(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mgcc_runtime.cli import main as mgcc

    shared = ["--bundle", str(tiny_bundle), *QUICK, "--parts", "latency,scale", "--json"]
    assert main([*shared, "--out", str(tmp_path / "l.json")]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert mgcc(["bench", *shared]) == 0
    theirs = json.loads(capsys.readouterr().out)
    assert shape_of(ours) == shape_of(theirs)
    assert ours["bundle"] == theirs["bundle"]


def shape_of(value: Any) -> Any:
    """The keys of an object, all the way down; figures themselves differ from run to run."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    return [shape_of(item) for item in value] if isinstance(value, list) else None


def test_process_stays_light(tiny_bundle: Path, tmp_path: Path) -> None:
    """Its peak memory is reported as the bundle's."""
    arguments = ["--bundle", str(tiny_bundle), *QUICK, "--parts", "latency", "--out", str(tmp_path / "l.json")]
    code = (
        f"import sys; from mgcc_benchmarks.latency.cli import main; code = main({arguments!r});"
        "print(*[n for n in ('torch', 'transformers', 'scipy', 'onnx', 'mgcc_ref') if n in sys.modules], '|', code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "| 0"


def test_chart_shows_the_larger_as_longer() -> None:
    def row(value: float) -> dict[str, float]:
        return {"mean": value, "p50": value, "p90": value, "p99": value, "max": value, "as_max": []}

    found = {
        "bundle": {"profile": "p", "target": "cpu"}, "machine": {"cpu": "c", "threads": 1}, "request": {"steps": 2},
        "stages_ms": {"short": row(1.0), "long": row(3.0)}, "total_ms": row(4.0), "others_cores": 0.0,
    }  # fmt: skip
    (axes,) = chart(found).axes
    bars = {label.get_text(): bar.get_width() for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)}
    assert bars == {"short": 1.0, "long": 3.0, "total": 4.0}


def test_help_tells_what_the_runs_carry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "p90 from 10 runs on, p99 from 100" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: --bundle"),
        (["--bundle", "x", "--parts", "speed"], "--parts has speed, expected some of cold, latency"),
        (["--bundle", "x", "--out", "r.txt"], "r.txt does not end in .json"),
        (["--bundle", "/no/such/bundle", "--out", "{tmp}/r.json"], "/no/such/bundle"),
        (["--bundle", "x", "--threads", "-1"], "threads is -1, expected a whole number from 0"),
    ],
)
def test_bad_arguments_exit_with_two(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([argument.format(tmp=tmp_path) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err
