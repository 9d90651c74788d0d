"""Layouts are scored as pictures are, and both grounders run on one model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgcc_benchmarks.bootstrap import Tally
from mgcc_benchmarks.storybench.grounders_cli import main, score_layout
from mgcc_ref.pipeline import GroundedObject
from mgcc_ref.story.bench import BenchItem, Suite, bench_item, setting_of
from mgcc_ref.story.world.scene import Box


@pytest.fixture
def item() -> BenchItem:
    """One with two objects or more whose places the text tells."""
    setting = setting_of(Suite.STORIES, "5")
    items = (bench_item(Suite.STORIES, setting, number) for number in range(50))
    return next(i for i in items if sum(e.fact is not None for e in i.expected) >= 2)


def truth(item: BenchItem) -> list[GroundedObject]:
    return [GroundedObject(o.label, o.box, 1.0) for o in item.target.objects]


def mirror(box: Box) -> Box:
    x1, y1, x2, y2 = box
    return (1 - x2, 1 - y2, 1 - x1, 1 - y1)


def test_the_true_layout_is_right_in_everything(item: BenchItem) -> None:
    tallies = score_layout(item, truth(item))
    assert all(t.right == t.counted > 0 for t in tallies.values())


def test_each_fault_lowers_its_own_score(item: BenchItem) -> None:
    first = item.expected[0].index
    missing = [o for i, o in enumerate(truth(item)) if i != first]
    assert score_layout(item, missing)["object_recall"].right == len(item.expected) - 1
    absent = next(label for label in ("guitar", "cactus", "gift") if label not in {o.label for o in truth(item)})
    extra = score_layout(item, [*truth(item), GroundedObject(absent, (0.4, 0.4, 0.6, 0.6), 1.0)])
    assert extra["object_precision"].right == extra["object_precision"].counted - 1
    mirrored = [GroundedObject(o.label, mirror(o.box), 1.0) for o in truth(item)]
    placed = score_layout(item, mirrored)
    assert placed["object_recall"] == Tally(len(item.expected), len(item.expected))
    assert placed["position_accuracy"].right < placed["position_accuracy"].counted
    assert placed["whole_layout"].right == 0


@pytest.mark.slow
def test_the_command_measures_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "g.json"
    assert main(["--items", "1", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["grounders"]
    assert set(found) == {"LayoutHead", "InContextLayout"}
    assert all(values["mean_ms"] > 0 for values in found.values())
    assert json.loads(out.read_text())["items"] == 1


@pytest.mark.slow
def test_a_model_that_cannot_write_layouts_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--profile", "tiny", "--items", "1", "--out", str(tmp_path / "g.json")]) == 2
    assert "grounders.py: the tokenizer has no token of its own for" in capsys.readouterr().err
