"""A set of weights is looked at once by the test split, and every look is on record."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from mgcc_benchmarks.storybench.evaluation import Plan, Record, run_plan, summarise
from mgcc_benchmarks.storybench.looks import LOOKS, Asked, begin_look, end_look, read_looks
from mgcc_benchmarks.storybench.painters import TruthPainter
from mgcc_benchmarks.storybench.quality_cli import main
from mgcc_ref.story.bench import Suite
from mgcc_ref.story.stories import Setting
from mgcc_ref.story.wording.phrases import Split
from mgcc_runtime.errors import InputError

PLAN = Plan(Suite.STORIES, Setting.CAPTIONS_5_IMAGES_4, 2, 0, 0, Split.TEST)
PAINTER = "bundle 0123456789abcdef, oracle nothing"


@pytest.fixture
def looks(tmp_path: Path) -> Path:
    return tmp_path / "looks.json"


@functools.cache
def records() -> tuple[Record, ...]:
    """Of a plan whose items are all right; what a look at other weights or settings scores is not asked here."""
    return tuple(run_plan(PLAN, TruthPainter(), None))


def look(looks: Path, *, plan: Plan = PLAN, painter: str = PAINTER, kept: Path | None = None, why: str = "") -> None:
    begun = begin_look(looks, Asked.of(plan), painter, kept=kept, why_again=why)
    scores = summarise(plan, records())["scores"]
    end_look(looks, begun, len(records()), {name: score["value"] for name, score in scores.items()})


def test_a_second_look_at_the_same_weights_wants_a_reason(looks: Path) -> None:
    look(looks)
    with pytest.raises(InputError, match=r"looked at with these weights on \d{4}-.*--look-again WHY"):
        look(looks)
    with pytest.raises(InputError, match="looked at with these weights"):
        look(looks, painter=PAINTER + ", 20 steps")  # other steps are other pictures of the same weights
    assert len(read_looks(looks)) == 1
    look(looks, why="the reader was mended")
    assert [found.why_again for found in read_looks(looks)] == ["", "the reader was mended"]
    assert read_looks(looks)[0].scores["whole_scene"] == 1.0


def test_other_weights_and_other_suites_are_other_looks(looks: Path) -> None:
    look(looks)
    look(looks, painter="bundle fedcba9876543210, oracle nothing")
    look(looks, plan=Plan(PLAN.suite, Setting.CAPTIONS_5, 2, 0, 0, Split.TEST))
    assert len(read_looks(looks)) == 3


def test_a_stopped_look_goes_on_and_a_kept_one_is_added_up_again(looks: Path, tmp_path: Path) -> None:
    begin_look(looks, Asked.of(PLAN), PAINTER, kept=None, why_again="")
    look(looks)
    assert len(read_looks(looks)) == 1

    class Named(TruthPainter):
        identity = PAINTER

    kept = tmp_path / "kept.jsonl"
    run_plan(PLAN, Named(), None, kept=kept)
    look(looks, kept=kept)
    assert len(read_looks(looks)) == 1


def test_broken_records_are_named(looks: Path) -> None:
    looks.write_text('[{"date": 1}]')
    with pytest.raises(InputError, match=r"looks .* cannot be read"):
        look(looks)


def test_the_projects_own_record_can_be_read() -> None:
    """Each look at one set of weights but the first says why."""
    first = set()
    for found in read_looks(LOOKS):
        assert found.subject not in first or found.why_again
        first.add(found.subject)


@pytest.mark.slow
def test_the_command_keeps_the_record(tiny_bundle: Path, looks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = looks.with_name("result.json")
    shared = ["--bundle", str(tiny_bundle), "--items", "1", "--words", "0", "--out", str(out)]
    test = [*shared, "--split", "test", "--looks", str(looks)]
    assert main(test) == 0
    assert "test split" in capsys.readouterr().out
    assert json.loads(looks.read_text())[0]["scores"]["whole_scene"] is not None
    assert main(test) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([*test, "--look-again", "smoke"]) == 0
