"""Training keeps off the validation texts: no six words in a row of `free_english.json` are in a training text.

Words of the shared vocabulary ("at the top in the middle") are nobody's own and do not count.
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
    """Every `LONGEST_SHARED` + 1 words in a row, in small letters."""
    words, count = _WORD.findall(text.lower()), LONGEST_SHARED + 1
    return (tuple(words[i : i + count]) for i in range(len(words) - count + 1))


@functools.cache
def validation_runs() -> frozenset[Run]:
    """Those of the free items, but for the vocabulary's own."""
    vocabulary = (p for bank in (PLACE_PHRASES, RELATION_PHRASES, SETTING_PHRASES) for ps in bank.values() for p in ps)
    own = {run for phrase in vocabulary for run in runs(phrase)}
    return frozenset(run for item in free_items() for text in item.texts for run in runs(text)) - own


def keeps_apart(text: str) -> bool:
    """Whether the text shares no six words in a row with any of them."""
    return validation_runs().isdisjoint(runs(text))
