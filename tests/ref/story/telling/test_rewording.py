"""Rewording says the same: things keep their places, labels keep their mentions, and a text stays a text."""

from __future__ import annotations

import numpy as np
import pytest

from mgcc_ref.story.telling.rewording import MORE_NOUNS, PHRASES, reworded
from mgcc_ref.story.wording.mentions import mentions_in
from mgcc_ref.story.wording.phrases import NOUNS, PLACE_PHRASES, RELATION_PHRASES

SENTENCE = "A fox stands in the top left corner, and an apple lies to the left of the house on the beach."
SIDES = ("left", "right")
HEIGHTS = ({"top", "upper", "up", "high"}, {"bottom", "lower", "down", "low"})


def words(text: str) -> set[str]:
    return set(text.lower().replace("-", " ").replace(",", " ").replace(".", " ").split())


@pytest.mark.parametrize("phrase", sorted(p for phrases in PLACE_PHRASES.values() for p in phrases))
def test_another_phrase_names_the_same_place(phrase: str) -> None:
    """By its words: the same side, the same height, and no other."""
    for other in PHRASES.get(phrase, ()):
        for side in SIDES:
            # "right" alone may say how exactly: "right in the middle"
            said = f"{side}-hand" in other or side in words(other.replace("right in", "").replace("right at", ""))
            assert said == (side in words(phrase.replace("right in", ""))), (phrase, other)
        for height in HEIGHTS:
            assert bool(height & words(other)) == bool(height & words(phrase)), (phrase, other)


def test_every_place_has_other_phrases() -> None:
    for place, phrases in PLACE_PHRASES.items():
        assert any(p in PHRASES for p in phrases), place
    assert any(p.replace(" {x}", "") in PHRASES for phrases in RELATION_PHRASES.values() for p in phrases)


def test_no_other_noun_belongs_to_two_labels() -> None:
    every = [noun for nouns in MORE_NOUNS.values() for noun in nouns]
    assert len(set(every)) == len(every)
    assert set(MORE_NOUNS) <= set(NOUNS)
    for label, nouns in MORE_NOUNS.items():
        for noun in nouns:
            # a known noun inside it is the label's own: "space rocket" is a rocket
            assert {m.label for m in mentions_in(noun)} <= {label}, noun


def test_it_is_a_function_of_the_generator_and_changes_something() -> None:
    texts = [reworded(SENTENCE, np.random.default_rng(i)) for i in range(200)]
    assert texts == [reworded(SENTENCE, np.random.default_rng(i)) for i in range(200)]
    assert len(set(texts)) > 100
    assert all(text.strip() for text in texts)


def test_articles_fit_the_new_noun() -> None:
    texts = [reworded("There is a house.", np.random.default_rng(i)) for i in range(300)]
    assert not [t for t in texts if " a e" in t.lower() or " an b" in t.lower() or " an c" in t.lower()]


def test_most_things_are_still_named_by_a_noun_of_theirs() -> None:
    """A slip or a new noun may hide one from `mentions_in`, not many."""
    named = [{m.label for m in mentions_in(reworded(SENTENCE, np.random.default_rng(i)))} for i in range(300)]
    assert not [labels for labels in named if labels - {"fox", "apple", "house"}]
    assert np.mean([len(labels) for labels in named]) > 2.4
