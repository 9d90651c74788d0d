"""Phrase banks: the splits share no template, every slot is known, no noun means two labels."""

from __future__ import annotations

import re
from string import Formatter

import numpy as np
import pytest

from mgcc_ref.story.dialogues import dialogue_templates
from mgcc_ref.story.layout_words import Place, Relation
from mgcc_ref.story.phrases import (
    NOUNS,
    PLACE_PHRASES,
    RELATION_PHRASES,
    SETTING_PHRASES,
    Kind,
    Split,
    indefinite,
    noun_for,
    plural,
    sentence,
    specific_settings,
    templates,
)
from mgcc_ref.story.phrases_dialogue import TRAIN
from mgcc_ref.story.phrases_dialogue_held_out import HELD_OUT
from mgcc_ref.story.scene import Background
from mgcc_ref.story.sprites import LABELS

SLOTS = {"a", "the", "where", "setting", "size", "plural", "p1", "p2", "other", "alias", "absent"}
FEW = {Kind.LEAVE_BOTH, Kind.SETTING_SHOWN, Kind.CONNECTOR}  # rare kinds need fewer templates


def _slots(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


@pytest.mark.parametrize("kind", list(Kind))
def test_splits_share_no_template(kind: Kind) -> None:
    train, held_out = set(templates(kind, Split.TRAIN)), set(templates(kind, Split.HELD_OUT))
    every_train = {t for other in Kind for t in templates(other, Split.TRAIN)}
    assert not every_train & held_out
    assert all(_slots(t) <= SLOTS for t in train | held_out)
    assert len({frozenset(_slots(t)) for t in train | held_out}) <= 2
    if kind not in FEW:
        assert len(train) >= 25
        assert len(held_out) >= 8


def test_splits_share_no_specific_setting() -> None:
    for background in Background:
        assert not set(specific_settings(background, Split.TRAIN)) & set(specific_settings(background, Split.HELD_OUT))


def test_dialogue_splits_share_no_template() -> None:
    assert set(TRAIN) == set(HELD_OUT)
    for kind in TRAIN:
        train, held_out = dialogue_templates(kind, Split.TRAIN), dialogue_templates(kind, Split.HELD_OUT)
        assert not set(train) & set(held_out)
        assert len(train) >= 4
        assert len(held_out) >= 2
        assert len({frozenset(_slots(t)) for t in train + held_out}) <= 2


def test_nouns_are_unambiguous() -> None:
    assert tuple(NOUNS) == LABELS
    every = [noun for nouns in NOUNS.values() for noun in nouns]
    assert len(every) == len(set(every))
    assert all(nouns[0] == label for label, nouns in NOUNS.items())


def test_templates_name_no_object() -> None:
    """A template that said "home" or "sun" would put objects into the text that are not in the scene."""
    nouns = {noun for group in NOUNS.values() for noun in group} - {"present"}  # "may I present" is a verb
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, nouns))})s?\b")
    texts = [t for split in Split for kind in Kind for t in templates(kind, split)]
    texts += [t for split in Split for b in Background for t in specific_settings(b, split)]
    texts += [phrase for phrases in SETTING_PHRASES.values() for phrase in phrases]
    assert [t for t in texts if pattern.search(re.sub(r"\{.*?\}", "", t))] == []


def test_every_place_and_relation_has_words() -> None:
    assert set(PLACE_PHRASES) == set(Place)
    assert set(RELATION_PHRASES) == set(Relation)
    phrases = [p for group in PLACE_PHRASES.values() for p in group]
    assert len(phrases) == len(set(phrases))


def test_small_grammar() -> None:
    assert indefinite("apple") == "an apple"
    assert indefinite("large apple") == "a large apple"
    assert [plural(n) for n in ("fox", "butterfly", "fish", "toy", "bus")] == [
        "foxes", "butterflies", "fish", "toys", "buses",
    ]  # fmt: skip
    assert sentence("is it?") == "Is it?"
    assert sentence("it is") == "It is."
    rng = np.random.default_rng(0)
    assert {noun_for("cat", rng) for _ in range(200)} == set(NOUNS["cat"])
