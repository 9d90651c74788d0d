"""Phrase banks: the splits share no template, every slot is known, no noun means two labels."""

from __future__ import annotations

import re
from string import Formatter

import numpy as np
import pytest

from mgcc_ref.story.dialogues import dialogue_templates
from mgcc_ref.story.wording.patterns import every_wording_of
from mgcc_ref.story.wording.phrases import (
    NOUNS,
    PLACE_PHRASES,
    RELATION_PHRASES,
    SETTING_PHRASES,
    Bank,
    Kind,
    Split,
    indefinite,
    noun_for,
    patterns,
    plural,
    sentence,
    specific_settings,
    templates,
)
from mgcc_ref.story.world.layout_words import Place, Relation
from mgcc_ref.story.world.scene import Background
from mgcc_ref.story.world.sprites import LABELS

SLOTS = {"a", "the", "where", "setting", "size", "plural", "p1", "p2", "other", "alias", "absent"}
FEW = {Kind.LEAVE_BOTH, Kind.SETTING_SHOWN, Kind.CONNECTOR}  # rare kinds need fewer templates


def _slots(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


HELD_BACK = (Split.VALIDATION, Split.TEST)


@pytest.mark.parametrize("kind", list(Kind))
def test_splits_share_no_template(kind: Kind) -> None:
    banks = {split: set(templates(kind, split)) for split in Split}
    every = {split: {t for other in Kind for t in templates(other, split)} for split in Split}
    for held_back in HELD_BACK:
        assert not any(every[other] & banks[held_back] for other in Split if other is not held_back)
    assert all(_slots(t) <= SLOTS for bank in banks.values() for t in bank)
    assert len({frozenset(_slots(t)) for bank in banks.values() for t in bank}) <= 2
    if kind not in FEW:
        assert len(banks[Split.TRAIN]) >= 25
        assert all(len(banks[held_back]) >= (8 if held_back is Split.VALIDATION else 7) for held_back in HELD_BACK)


def test_splits_share_no_specific_setting() -> None:
    for background in Background:
        every = [t for split in Split for t in set(specific_settings(background, split))]
        assert len(set(every)) == len(every)


def test_dialogue_splits_share_no_template() -> None:
    kinds = set(patterns(Split.TRAIN, Bank.DIALOGUES))
    for split in Split:
        assert kinds == set(patterns(split, Bank.DIALOGUES))
    for kind in kinds:
        banks = [dialogue_templates(kind, split) for split in Split]
        every = [t for bank in banks for t in set(bank)]
        assert len(set(every)) == len(every)
        assert len(banks[0]) >= 4
        assert all(len(bank) >= 2 for bank in banks)
        assert len({frozenset(_slots(t)) for t in every}) <= 2


def test_draw_splits_share_no_line() -> None:
    for name in ("DRAW", "TALK", "TRICKY"):
        every = [t for split in Split for t in set(every_wording_of(patterns(split, Bank.DRAW)[name]))]
        assert len(set(every)) == len(every)


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
