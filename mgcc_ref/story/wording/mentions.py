"""Mentions of objects in a text: nouns of the world, singular or plural."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mgcc_ref.story.wording.phrases import NOUNS, plural


@dataclass(frozen=True)
class Mention:
    """A label's noun at text[start:end]."""

    label: str
    start: int
    end: int


def any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    """A pattern for any of the phrases as whole words, the longest first: "palm tree" is no "tree"."""
    forms = sorted(phrases, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(re.escape(form) for form in forms) + r")\b", re.IGNORECASE)


_LABEL_OF = {form: label for label, nouns in NOUNS.items() for noun in nouns for form in (plural(noun), noun)}
_PATTERN = any_of(_LABEL_OF)


def mentions_in(text: str) -> Iterator[Mention]:
    """All nouns of objects in the text, in order, repeats included."""
    for match in _PATTERN.finditer(text):
        yield Mention(_LABEL_OF[match.group().lower()], match.start(), match.end())
