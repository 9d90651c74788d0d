"""When to draw: turns of both kinds, and an output row that says what the training objective says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mgcc_ref.model import MgccModel, load_model
from mgcc_ref.prompting import build_prompt
from mgcc_ref.story.draw_turns import make_draw_turn, written_lines
from mgcc_ref.story.wording.patterns import every_wording_of
from mgcc_ref.story.wording.phrases import Bank, Split, patterns
from mgcc_ref.train.steps.draw import DrawObjective, draw_turn, last_state


@pytest.fixture(scope="module")
def tiny() -> MgccModel:
    return load_model("tiny")


def lines(name: str, split: Split) -> set[str]:
    return set(every_wording_of(patterns(split, Bank.DRAW)[name]))


def test_both_kinds_come_about_equally_often() -> None:
    turns = [make_draw_turn(np.random.default_rng(i), Split.TRAIN) for i in range(400)]
    assert 0.42 < np.mean([turn.draws for turn in turns]) < 0.58
    assert {len(turn.parts) for turn in turns} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("name", ["DRAW", "TALK", "TRICKY"])
def test_held_back_phrasings_are_never_trained_on(name: str) -> None:
    assert not lines(name, Split.TRAIN) & lines(name, Split.VALIDATION)


def test_every_written_line_is_trained_on_once_and_none_is_a_held_back_one() -> None:
    written = written_lines()
    assert 0.45 < np.mean([line.draws for line in written]) < 0.55
    turns = [draw_turn(1, i, Split.TRAIN) for i in range(len(written) + 200)]
    assert [(t.parts[-1], t.draws) for t in turns[: len(written)]] == [(w.parts[0], w.draws) for w in written]
    assert len({t.parts[-1] for t in turns[len(written) :]}) > 80, "then come templates"
    held_back = {
        line.lower()
        for split in (Split.VALIDATION, Split.TEST)
        for name in ("DRAW", "TALK", "TRICKY")
        for line in lines(name, split)
    }
    assert not held_back & {line.parts[0].lower() for line in written}
    assert draw_turn(1, 0, Split.VALIDATION).parts[-1].lower() not in {w.parts[0].lower() for w in written}


def test_no_line_asks_and_does_not_ask() -> None:
    for split in Split:
        assert not lines("DRAW", split) & (lines("TALK", split) | lines("TRICKY", split))


def test_the_row_of_the_head_is_the_objective(tiny: MgccModel) -> None:
    """The margin that was trained is the margin of the logits that the stage gives."""
    turns = [draw_turn(1, i, Split.TRAIN) for i in range(6)]
    states, words = zip(*(last_state(tiny, turn) for turn in turns), strict=True)
    objective = DrawObjective(torch.stack(states), torch.tensor(words)).eval()
    with torch.no_grad():
        objective.row.weight.normal_()
        objective.row.bias.fill_(0.3)
    weight, bias = objective.as_head_row()
    for turn, state, word in zip(turns, states, words, strict=True):
        expected = objective.row((state - objective.mean) / objective.spread).item() - word
        with torch.no_grad():
            tiny.llm.image_tokens.head.weight[0], tiny.llm.image_tokens.head.bias[0] = weight, bias
            logits = tiny.llm(build_prompt(tiny, turn.parts).embeddings, *tiny.llm.empty_cache())[0][0, 0]
        first = tiny.profile.llm.vocabulary
        margin = (logits[first] - torch.logsumexp(logits[:first], dim=-1)).item()
        assert margin == pytest.approx(expected, abs=1e-3)


def test_separable_turns_are_learned() -> None:
    torch.manual_seed(0)
    states = torch.randn(200, 16) * torch.linspace(0.1, 100, 16)
    draws = (states[:, 0] > 0).float()
    words = torch.full((200,), 9.0)
    objective = DrawObjective(states, words)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-2)
    batch = {"states": states, "words": words, "draws": draws}
    for _ in range(200):
        loss, metrics = objective(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["accuracy"] > 0.95
