"""Dialogues: ten rounds, true facts, everything told by the tenth."""

from __future__ import annotations

import pytest

from mgcc_ref.story.dialogues import ROUNDS, Dialogue, DialogueSetting, make_dialogue
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.story.world.layout_words import is_at
from mgcc_ref.story.world.scene import MAX_OBJECTS, MAX_OVERLAP, overlap

DIALOGUES = 500


@pytest.fixture(scope="module", params=list(Split), ids=lambda s: s.value)
def many(request: pytest.FixtureRequest) -> list[Dialogue]:
    return [make_dialogue(seed, request.param) for seed in range(DIALOGUES)]


def test_facts_hold(many: list[Dialogue]) -> None:
    for dialogue in many:
        objects = dialogue.target.objects
        assert 1 <= len(objects) <= MAX_OBJECTS
        assert [f.index for f in dialogue.facts] == list(range(len(objects)))
        assert all(is_at(objects[f.index].box, f.fact) for f in dialogue.facts)
        assert all(overlap(a.box, b.box) <= MAX_OVERLAP for i, a in enumerate(objects) for b in objects[:i])
        assert all(f.named.at <= f.placed.at for f in dialogue.facts)


def test_settings(many: list[Dialogue]) -> None:
    for dialogue in many:
        assert len(dialogue.rounds) == ROUNDS
        assert [len(dialogue.view(setting)) for setting in DialogueSetting] == [1, 5, 10]
        assert dialogue.is_told(DialogueSetting.ROUNDS_10)
        assert not dialogue.is_told(DialogueSetting.ROUNDS_1)
        assert max(len(text.split()) for text in dialogue.parts) <= 50


def test_same_seed_same_dialogue() -> None:
    assert make_dialogue(4) == make_dialogue(4)
    assert make_dialogue(4) != make_dialogue(5)
