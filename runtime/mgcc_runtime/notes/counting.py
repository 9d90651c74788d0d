"""How many things a text asks for."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence

from mgcc_runtime.notes.asking import Clauses
from mgcc_runtime.notes.lexicon import Lexicon, Mention, numbers, words_of

MANY = 100  # what a crowd counts
_SHORTEST, _LIKENESS = 5, 0.85  # letters of a misspelt plural; how like the right one it is
_ADJECTIVES = 2  # between a number and its noun
_DEFINITE = frozenset({"the", "my", "our", "his", "her", "their", "its", "this", "that", "these", "those", "both"})


def asked_numbers(sentences: Sequence[Sequence[str]], lexicon: Lexicon) -> Counter[str]:
    """How many things of each label are asked for; "the fox" is one that was counted before, or the first."""
    found: Counter[str] = Counter()
    last = ""
    for sentence in sentences:
        mentions, clauses = {m.start: m for m in lexicon.mentions(sentence) if m.label}, Clauses(sentence)
        for at, word in enumerate(sentence):
            mention = mentions.get(at)
            last = mention.label if mention is not None else last
            if mention is not None and clauses.ask_for(mention):
                count = _count(sentence, mention)
                found[last] = max(found[last], 1) if count is None else found[last] + count
            elif word in numbers() and (label := _misspelt(sentence, at + 1, lexicon)):
                last = label
                found[last] += numbers()[word]
            elif last and word in numbers() and sentence[at + 1 : at + 2] in (["on"], ["at"], ["in"], ["more"]):
                found[last] += numbers()[word]  # "seven on the right"
            elif last and word in numbers() and _is_of_what_was_named(sentence, at):
                found[last] = max(found[last], numbers()[word])
            elif last and word in numbers() and _stands_alone(sentence, at):
                found[last] = max(found[last], numbers()[word])  # "draw all fourteen"
    return found


def _misspelt(sentence: Sequence[str], at: int, lexicon: Lexicon) -> str:
    """The label that the word at `at` is a slip of the pen for ("eleven baloons"), or "" where it is none."""
    word = sentence[at] if at < len(sentence) else ""
    if len(word) < _SHORTEST or not word.endswith("s") or lexicon.mentions([word]):
        return ""
    close = difflib.get_close_matches(word, lexicon.known_words, n=1, cutoff=_LIKENESS)
    return lexicon.mentions(close)[0].label if close else ""


def _is_of_what_was_named(sentence: Sequence[str], at: int) -> bool:
    """ "balloons, forty or so", "hundreds and hundreds"."""
    following = list(sentence[at + 1 : at + 3])
    return following in (["or", "so"], ["of", "them"], ["of", "those"], ["and", sentence[at]])


def _stands_alone(sentence: Sequence[str], at: int) -> bool:
    """Whether nothing but an order stands before a number, and its clause ends with it."""
    ends = at + 1 == len(sentence) or sentence[at + 1] in (",", ":", ")")
    return ends and set(sentence[:at]) <= words_of("orders") | {"a", "all", "the", "of", "them", "i", "please", "just"}


def _count(sentence: Sequence[str], mention: Mention) -> int | None:
    """The number that stands before a noun; None where it is a thing that the text knows already."""
    before = list(sentence[max(0, mention.start - _ADJECTIVES - 1) : mention.start])
    for word in reversed(before):
        if word in _DEFINITE:
            return None
        if word.isdigit():
            return min(int(word), 10**6)
        if word in ("hundred", "thousand"):
            return MANY
        if word in numbers() and not ("hundred" in before or "thousand" in before):
            return numbers()[word]
        if word in words_of("crowds"):
            return MANY
        if word in ("a", "an", "another", "one") and "and" not in before:
            return 1
    return 1
