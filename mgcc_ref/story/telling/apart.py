"""Keeps training texts apart from the validation texts: they share no six words in a row with `free_english.json`.

Phrases of the shared vocabulary ("at the top in the middle") are exempt.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from mgcc_ref.story.free_english import free_items
from mgcc_ref.story.wording.phrases import PLACE_PHRASES, RELATION_PHRASES, SETTING_PHRASES

LONGEST_SHARED = 5
_WORD = re.compile(r"[a-z0-9']+")

Run = tuple[str, ...]


def runs(text: str) -> Iterator[Run]:
    """Every run of `LONGEST_SHARED` + 1 words, in lower case."""
    words, count = _WORD.findall(text.lower()), LONGEST_SHARED + 1
    return (tuple(words[i : i + count]) for i in range(len(words) - count + 1))


@functools.cache
def validation_runs() -> frozenset[Run]:
    """The runs of the free items, without those of the shared vocabulary."""
    vocabulary = (p for bank in (PLACE_PHRASES, RELATION_PHRASES, SETTING_PHRASES) for ps in bank.values() for p in ps)
    own = {run for phrase in vocabulary for run in runs(phrase)}
    return frozenset(run for item in free_items() for text in item.texts for run in runs(text)) - own


def keeps_apart(text: str) -> bool:
    """Whether the text has none of the `validation_runs`."""
    return validation_runs().isdisjoint(runs(text))
