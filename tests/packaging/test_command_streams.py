"""Commands of the project at work, each standard stream closed, full, in ASCII or without a reader: what they make is
kept. Those of `mgcc` but for `kit` are in tests/runtime/commands/test_standard_streams.py.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from examples.demo import run_demo
from mgcc_benchmarks.latency import cli as latency_cli
from mgcc_benchmarks.planner import cli as planner_cli
from mgcc_benchmarks.storybench import decisions_cli, quality_cli
from mgcc_calibration import cli as calibration_cli
from mgcc_export import cli as export_cli
from mgcc_ref.story import __main__ as story_cli
from mgcc_ref.train import __main__ as train_cli
from mgcc_ref.train.steps import vae
from mgcc_runtime import cli as mgcc_cli
from mgcc_runtime.errors import EXIT_DONE, EXIT_FAILED
from tests.stream_states import LOSING, STATES, State, run_with, sound
from tools import (
    average_weights,
    convert_checkpoint,
    grow_unet,
    make_demo_inputs,
    oldest_python,
    read_tensorrt_api,
    stage_diagram,
    stage_table,
)

from .conftest import OWN_PYTHON, wheelhouse
from .test_kit import serve

pytestmark = pytest.mark.slow
Run = Callable[..., tuple[int, dict[str, str]]]


@dataclass(frozen=True)
class Work:
    """A short run of a command; `BUNDLE`, `CACHE` and `GIVEN` stand for folders."""

    main: Callable[[list[str]], int]
    arguments: tuple[str, ...]
    kept: str = ""  # a file that is there afterwards
    asked: bool = False  # whether standard output is all that was asked for


TINY = ("--profile", "tiny", "--target", "cpu", "--precision", "fp32", "--cache", "CACHE")
HERE = ("--python", OWN_PYTHON, "--platform", os.uname().machine)
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
    "kit": Work(mgcc_cli.main, ("kit", "--bundle", "BUNDLE", *HERE, "--out", "kit"), "kit/bundle/manifest.json"),
    "train": Work(
        train_cli.main,
        ("--profile", "tiny", "--step", "vae", "--steps", "1", "--run", "run", "--weights", "made"),
        "made/vae.safetensors",
    ),
    "story": Work(story_cli.main, ("--sheet", "sheet.png", "--stories", "1"), "sheet.png"),
    "story, speed": Work(story_cli.main, ("--speed", "--count", "1"), asked=True),
    "demo": Work(
        run_demo.main,
        ("--bundle", "BUNDLE", "--story", "GIVEN/story.json", "--words", "0", "--out", "out"),
        "out/result.json",
    ),
    "convert_checkpoint": Work(convert_checkpoint.main, ("--source", "GIVEN", "--out", "llm"), "llm/model.safetensors"),
    "grow_unet": Work(
        grow_unet.main, ("--weights", "GIVEN", "--painter", "GIVEN/painter.safetensors"), "GIVEN/unet.safetensors"
    ),
    "average_weights": Work(
        average_weights.main,
        ("--first", "GIVEN/unet.safetensors", "--second", "GIVEN/unet.safetensors", "--out", "mean.safetensors"),
        "mean.safetensors",
    ),
    "make_demo_inputs": Work(make_demo_inputs.main, ("--out", "."), "trip.png"),
    "oldest_python": Work(oldest_python.main, (), asked=True),
    "stage_diagram": Work(stage_diagram.main, ("--out", "stages.png"), "stages.png"),
    "stage_table": Work(stage_table.main, ("--check",)),
    "read_tensorrt_api": Work(read_tensorrt_api.main, ("--bindings", "tensorrt_rtx_bindings"), asked=True),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo and the tools read: a story of one turn, pickled weights, and a UNet without a painter."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "story.json").write_text('{"parts": [{"text": "A fox sits on the beach."}]}', encoding="utf-8")
    torch.save({"embed_tokens.weight": torch.zeros(4, 2)}, folder / "pytorch_model.bin")
    unet = {grow_unet.CONV_IN: torch.zeros(4, 12, 3, 3), "unet.conv_out.weight": torch.zeros(8, 4, 3, 3)}
    save_file(unet, folder / "unet.safetensors")
    save_file({"painter.weight": torch.zeros(2)}, folder / "painter.safetensors")
    return folder


@pytest.fixture
def run(tiny_bundle: Path, cache: Path, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run some work in an empty folder with these streams; see `run_with`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vae, "BATCH_SIZE", 2)
    serve(monkeypatch, wheelhouse(OWN_PYTHON))
    shutil.copytree(given, "GIVEN")
    places = {"BUNDLE": str(tiny_bundle), "CACHE": str(cache)}

    def run_it(work: Work, **states: State) -> tuple[int, dict[str, str]]:
        return run_with(lambda: work.main([places.get(word, word) for word in work.arguments]), **states)

    return run_it


def check_kept(work: Work) -> None:
    kept = Path(work.kept)
    if kept.suffix == ".json":
        json.loads(kept.read_text(encoding="utf-8"))
    elif kept.suffix == ".safetensors":
        assert load_file(kept)
    elif kept.suffix == ".png":
        with Image.open(kept) as picture:
            picture.load()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", RUNS)
def test_standard_output(run: Run, name: str, state: str) -> None:
    work = RUNS[name]
    code, told = run(work, stdout=STATES[state], stderr=sound)
    check_kept(work)
    assert code == (EXIT_FAILED if work.asked and state in LOSING else EXIT_DONE)
    assert "Traceback" not in told["stderr"] and "Exception ignored" not in told["stderr"]
    if work.asked and state in LOSING:
        assert "standard output cannot be written to" in told["stderr"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", RUNS)
def test_standard_error_changes_nothing(run: Run, name: str, state: str) -> None:
    work = RUNS[name]
    code, told = run(work, stdout=sound, stderr=STATES[state])
    check_kept(work)
    assert code == EXIT_DONE
    assert told["stdout"]
