"""Whether to draw: held-back turns, what is counted, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mgcc_benchmarks.storybench.decisions_cli import decides_to_draw, held_back_turns, main, score_decisions
from mgcc_benchmarks.storybench.looks import read_looks
from mgcc_ref.story.draw_turns import DrawTurn, make_draw_turn
from mgcc_ref.story.wording.phrases import Split
from mgcc_runtime import Pipeline


def test_turns_are_repeatable_and_of_both_kinds() -> None:
    turns = list(held_back_turns(100))
    assert turns == list(held_back_turns(100))
    assert 30 < sum(t.draws for t in turns) < 70
    training = {make_draw_turn(np.random.default_rng([1, i]), Split.TRAIN).parts[-1] for i in range(500)}
    assert not training & {t.parts[-1] for t in turns if t.draws}


def test_each_kind_of_error_has_its_score() -> None:
    turns = [DrawTurn(("a",), True)] * 4 + [DrawTurn(("b",), False)] * 4
    missed = score_decisions(turns, [False, True, True, True, False, False, False, False])
    assert [missed[n].value for n in ("right", "drawn_when_asked", "silent_when_not")] == [0.875, 0.75, 1.0]
    eager = score_decisions(turns, [True] * 8)
    assert [eager[n].value for n in ("right", "drawn_when_asked", "silent_when_not")] == [0.5, 1.0, 0.0]
    assert score_decisions(turns[:4], [True] * 4)["silent_when_not"].value is None


def test_it_decides_as_a_chat_does(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [t for t in held_back_turns(60) if len(t.parts) == 1][:4]
    with Pipeline.load(tiny_bundle) as pipeline:
        for turn in turns:
            answer = pipeline.chat().answer(turn.parts[0], words=1)
            assert hasattr(answer, "image") == decides_to_draw(pipeline, turn)
    out = tmp_path / "d.json"
    assert main(["--bundle", str(tiny_bundle), "--items", "3", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    assert main(["--bundle", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert "decisions.py: " in capsys.readouterr().err


def test_a_look_at_the_test_split_is_on_record(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looks, out = tmp_path / "looks.json", tmp_path / "d.json"
    test = ["--bundle", str(tiny_bundle), "--items", "2", "--out", str(out), "--split", "test", "--looks", str(looks)]
    assert main(test) == 0
    (found,) = read_looks(looks)
    told = json.loads(out.read_text())["scores"]["right"]["value"]
    assert (found.suite, found.items, found.scores["right"]) == ("decisions", 2, told)
    capsys.readouterr()
    assert main(test) == 2
    assert "looked at with these weights" in capsys.readouterr().err
    assert main([*test, "--look-again", "smoke"]) == 0 and len(read_looks(looks)) == 2
