"""When to draw: turns of both kinds, and a decision that is the same in training and in the pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mgcc_ref.model import MgccModel, load_model
from mgcc_ref.networks.draw_decision import DrawDecision, turn_summary
from mgcc_ref.pipeline import ReferencePipeline
from mgcc_ref.story.draw_turns import make_draw_turn, written_lines
from mgcc_ref.story.wording.patterns import every_wording_of
from mgcc_ref.story.wording.phrases import Bank, Split, patterns
from mgcc_ref.train.loop import TrainingPrecision
from mgcc_ref.train.steps.draw import DrawObjective, draw_turn, summaries


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
    turns = [draw_turn(1, Split.TRAIN, i) for i in range(len(written) + 200)]
    assert [(t.parts[-1], t.draws) for t in turns[: len(written)]] == [(w.parts[0], w.draws) for w in written]
    assert len({t.parts[-1] for t in turns[len(written) :]}) > 80, "then come templates"
    held_back = {
        line.lower()
        for split in (Split.VALIDATION, Split.TEST)
        for name in ("DRAW", "TALK", "TRICKY")
        for line in lines(name, split)
    }
    assert not held_back & {line.parts[0].lower() for line in written}
    assert draw_turn(1, Split.VALIDATION, 0).parts[-1].lower() not in {w.parts[0].lower() for w in written}


def test_no_line_asks_and_does_not_ask() -> None:
    for split in Split:
        assert not lines("DRAW", split) & (lines("TALK", split) | lines("TRICKY", split))


def test_a_group_is_read_as_each_turn_alone(tiny: MgccModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trained logit, of turns that are padded to one length, is that of the model's own pipeline."""
    turns = [draw_turn(1, Split.TRAIN, i) for i in range(6)]
    read = summaries(tiny, TrainingPrecision.FP32, turns)
    decision = DrawDecision(tiny.profile.llm.feature_dim)
    decision.standardise(read["summary"].float())
    torch.manual_seed(1)
    with torch.no_grad():
        decision.row.weight.normal_()
    monkeypatch.setattr(tiny, "decision", decision)
    assert read["draws"].tolist() == [float(turn.draws) for turn in turns]
    alone = [ReferencePipeline(tiny).draw_logit(turn.parts) for turn in turns]
    assert decision(read["summary"].float()).tolist() == pytest.approx(alone, rel=0.02, abs=0.05)
    assert max(alone) - min(alone) > 1


def test_a_model_without_a_decision_says_so(tiny: MgccModel) -> None:
    with pytest.raises(ValueError, match="train it with step draw"):
        ReferencePipeline(tiny).draw_logit(["A cat."])


def test_only_the_turn_and_the_last_position_count() -> None:
    features = torch.arange(12.0).reshape(6, 2)
    assert turn_summary(features, slice(2, 4)).tolist() == [5, 6, 10, 11]
    changed = features.clone()
    changed[[0, 1, 4]] = 99
    assert torch.equal(turn_summary(changed, slice(-4, -2)), turn_summary(features, slice(2, 4)))


def test_the_folded_row_is_the_decision() -> None:
    torch.manual_seed(0)
    decision, summaries_of = DrawDecision(3), torch.randn(50, 6) * torch.logspace(-2, 3, 6) + 40
    decision.standardise(summaries_of)
    with torch.no_grad():
        decision.row.weight.normal_()
        decision.row.bias.fill_(0.3)
    folded = decision.folded()
    expected = decision(summaries_of)
    given = summaries_of @ folded[:-1] + folded[-1]
    assert torch.allclose(given, expected, atol=2e-3) and expected.std() > 1
    again = DrawDecision(3)
    again.load_state_dict({name: value.half().float() for name, value in decision.state_dict().items()})
    assert torch.allclose(again(summaries_of), expected, atol=0.02), "as it is saved"


def learned(huge: float, *, scaled: bool) -> float:
    """The share of right answers after 200 steps; the smallest of 16 dimensions tells the answer."""
    torch.manual_seed(0)
    given = torch.randn(200, 16) * torch.linspace(0.1, huge, 16)
    batch = {"summary": given, "draws": (given[:, 0] > 0).float()}
    objective = DrawObjective(DrawDecision(8))
    if scaled:
        objective.decision.standardise(given)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-2)
    for _ in range(200):
        loss, metrics = objective(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(metrics["accuracy"])


def test_separable_turns_are_learned_and_without_the_scaling_they_are_not() -> None:
    assert learned(1000, scaled=True) > 0.95
    assert learned(1000, scaled=False) < 0.95
