"""The demo's story and the script that plays it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.tolerances import RENDERER_ROUNDING

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    return load(DEMO / "run_demo.py")


def test_story_has_five_turns_and_an_object_known_only_from_an_image(demo):
    turns = list(demo.read_turns(DEMO / "story.json"))
    assert len(turns) >= 5
    assert turns[0].given
    assert any(turn.given for turn in turns[1:])
    told = " ".join(text for turn in turns for text in turn.texts)
    scenes = load(ROOT / "tools" / "make_demo_inputs.py").SCENES
    shown = {item.label for scene in scenes.values() for item in scene.objects}
    assert {label for label in shown if label not in told} >= {"fox", "penguin"}
    assert "my friend" in " ".join(turns[1].texts).lower()  # long after its picture


def test_the_second_story_is_of_texts_alone_in_no_templates_words(demo):
    turns = list(demo.read_turns(DEMO / "free.json"))
    assert len(turns) >= 6
    assert not any(turn.given for turn in turns)
    assert all(len(text.split()) >= 8 for turn in turns for text in turn.texts)


def test_committed_pictures_are_what_the_script_draws():
    tool = load(ROOT / "tools" / "make_demo_inputs.py")
    for name in tool.SCENES:
        with Image.open(DEMO / name) as committed:
            difference = np.asarray(committed, dtype=np.int16) - np.asarray(tool.picture(name), dtype=np.int16)
        assert np.abs(difference).max() <= RENDERER_ROUNDING


@pytest.mark.slow
def test_demo_plays_on_a_tiny_bundle(tiny_bundle, tmp_path):
    command = [sys.executable, DEMO / "run_demo.py", "--bundle", tiny_bundle, "--out", tmp_path, "--words", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert len(told["turns"]) == len(list(tmp_path.glob("turn-*.png"))) == 6
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert min(sheet.size) > 400
    assert str(tmp_path / "contact-sheet.png") in done.stdout


def test_demo_without_a_bundle_says_what_to_do(tmp_path):
    command = [sys.executable, DEMO / "run_demo.py", "--bundle", tmp_path / "none", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
