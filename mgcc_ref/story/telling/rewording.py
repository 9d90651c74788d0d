"""Training texts in more words than templates have: other phrases of the same meaning, asides, and spelling mistakes.

StoryBench's items share the narrators' vocabulary, so it stays as it is, and finished texts are reworded. The meaning
never changes: another phrase for a place means the same place.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import numpy as np

from mgcc_ref.story.telling.teller import fitting_articles
from mgcc_ref.story.telling.words import data
from mgcc_ref.story.wording.data import words_by_name
from mgcc_ref.story.wording.mentions import any_of, mentions_in
from mgcc_ref.story.wording.phrases import NOUNS, pick, plural

PHRASE_CHANCE, NOUN_CHANCE = 0.4, 0.15
ASIDE_CHANCE, OPENER_CHANCE = 0.12, 0.15
LOWER_CASE_CHANCE, SLIP_CHANCE = 0.08, 0.2
CONTRACTION_CHANCE = 0.4
_SHORTEST_SLIP = 4  # the fewest letters of a misspelt word

_WORDS = data("rewordings")
#: Nouns that no template has.
MORE_NOUNS: Mapping[str, tuple[str, ...]] = words_by_name(data("nouns")["of"])
#: A template's phrase -> other phrases of the same meaning.
PHRASES: Mapping[str, tuple[str, ...]] = words_by_name(_WORDS["phrases"])
#: Words that are contracted only before another word ("it is here", not "yes, it is") -> their short forms.
CONTRACTIONS: Mapping[str, tuple[str, ...]] = words_by_name(_WORDS["contractions"])
OPENERS: tuple[str, ...] = tuple(_WORDS["openers"])
ASIDES: tuple[str, ...] = tuple(_WORDS["asides"])


def reworded(text: str, rng: np.random.Generator) -> str:
    """The text in other words, sometimes with an aside or a spelling mistake."""
    text = contracted(_other_phrases(_other_nouns(text, rng), rng), rng)
    if rng.random() < OPENER_CHANCE:
        text = f"{pick(OPENERS, rng)}, {text[0].lower() if text[:2] != 'I ' else 'I'}{text[1:]}"
    if rng.random() < ASIDE_CHANCE:
        aside = pick(ASIDES, rng)
        text = f"{text} {aside[0].upper()}{aside[1:]}." if rng.random() < 0.5 else f"{text.rstrip('.')}, {aside}."
    if rng.random() < SLIP_CHANCE:
        text = with_slips(text, rng)
    return text.lower().rstrip(".") if rng.random() < LOWER_CASE_CHANCE else text


@functools.cache
def _phrase_pattern() -> re.Pattern[str]:
    return any_of(PHRASES)


def _other_phrases(text: str, rng: np.random.Generator) -> str:
    def replace(found: re.Match[str]) -> str:
        if rng.random() >= PHRASE_CHANCE:
            return found[0]
        other = pick(PHRASES.get(found[0], PHRASES.get(found[0].lower(), (found[0],))), rng)
        return other[0].upper() + other[1:] if found[0][0].isupper() else other

    return _phrase_pattern().sub(replace, text)


def contracted(text: str, rng: np.random.Generator) -> str:
    """The text with some of its words contracted."""

    def replace(found: re.Match[str]) -> str:
        if rng.random() >= CONTRACTION_CHANCE:
            return found[0]
        short = pick(CONTRACTIONS.get(found[0], CONTRACTIONS.get(found[0].lower(), (found[0],))), rng)
        return short[0].upper() + short[1:] if found[0][0].isupper() else short

    return _contraction_pattern().sub(replace, text)


@functools.cache
def _contraction_pattern() -> re.Pattern[str]:
    return re.compile(any_of(CONTRACTIONS).pattern + r"(?= \w)", re.IGNORECASE)


def _other_nouns(text: str, rng: np.random.Generator) -> str:
    """Replace some nouns, and fit the articles to the new ones."""
    pieces, end = [], 0
    for mention in mentions_in(text):
        said = text[mention.start : mention.end]
        others = MORE_NOUNS.get(mention.label, ())
        if not others or rng.random() >= NOUN_CHANCE:
            continue
        other = pick(others, rng)
        singular = said.lower() in NOUNS[mention.label]
        pieces += [text[end : mention.start], other if singular else plural(other)]
        end = mention.end
    return fitting_articles("".join([*pieces, text[end:]]))


def with_slips(text: str, rng: np.random.Generator) -> str:
    """Misspell one or two words: a letter is lost or doubled, or two are swapped."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= _SHORTEST_SLIP and word.isalpha()]
    for i in rng.permutation(long)[: 1 + int(rng.random() < 0.4)]:
        words[i] = _misspelt(words[i], rng)
    return " ".join(words)


def _misspelt(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(word) - 1))
    kind = int(rng.integers(3))
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
