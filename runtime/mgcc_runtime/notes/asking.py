"""Whether a sentence asks for a thing, or only speaks of it: "as slow as a snail", "no horses", "dreams of a zebra"."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from mgcc_runtime.notes.lexicon import Lexicon, Mention, numbers, often_told, people, words_of

_MARKS = frozenset(",:()")
_CLAUSE_ENDS = _MARKS | {"but", "just", "only"}
_AWAY = frozenset({"out", "away", "off"})
_PAST = frozenset({"ago", "once", "yesterday"})
_WOULD = frozenset({"i", "'d", "would", "we", "id"})
_WHAT_ABOUT = (["what", "about"], ["how", "about"])
_PREPOSITIONS = frozenset({"in", "on", "at", "to", "by", "near", "beside", "above", "below", "under", "next"})
_TIMES = frozenset({"night", "winter", "summer", "day", "afternoon", "nowhere"})
_SHORTEST_RARE, _MISSPELT = 3, 0.78  # letters of a rare noun; likeness of a slip of the pen to the noun it stands for
#: Pairs of words that ask for what follows, though the one word alone does not; and pairs that do not ask for it.
_ASKS = frozenset(
    {("you", "forgot"), ("wish", "to"), ("wish", "for"), ("hope", "to"), ("what", "if"), ("if", "you"), ("still", "no"),
     ("miss", "a")}
)  # fmt: skip
_ABOUT_ITSELF = frozenset({"this", "that", "you", "your", "my"})
_IS = frozenset({"is", "are", "'s"})
_NOT_THERE = frozenset(
    {("to", "become"), ("leave", "out"), ("leaving", "out"), ("left", "out"), ("is", "that"), ("is", "this"),
     ("was", "that"), ("was", "it"), ("nothing", "but"),
     *(("last", time) for time in ("week", "month", "year", "time"))}
)  # fmt: skip
_ALONE = frozenset(
    {"and", "also", "plus", "please", "a", "an", "the", "some", "another", "now", "big", "little", "small"}
)  # fmt: skip
_NEAR = 4  # words within which a place follows its thing


class Clauses:
    """The clauses of a sentence, each read once: a text without marks is a single one, of a thousand words or more."""

    def __init__(self, sentence: Sequence[str]) -> None:
        self._sentence = sentence
        self._by_word: list[_Clause] = []
        start = 0
        for at in range(len(sentence) + 1):
            if at == len(sentence) or sentence[at] in _CLAUSE_ENDS:
                clause = _Clause.of(sentence, start, at)
                self._by_word += [clause] * (at + 1 - start)  # what ends it has none of its own
                start = at + 1

    def ask_for(self, mention: Mention) -> bool:
        """Whether the picture is to show it, as far as the words around it tell."""
        clause, start, end = self._by_word[mention.start], mention.start, mention.end
        if clause.denied < start or (start - 2 >= clause.start and self._sentence[start - 2] == "as"):
            return False
        if clause.past >= end or (clause.take < start and clause.away >= end):
            return False
        return not (end < clause.end and self._sentence[end] in ("'s", "about"))


@dataclass(frozen=True)
class _Clause:
    """The words [start, end) of a sentence, and where in it stands what decides; len(sentence) or -1: nowhere."""

    start: int
    end: int
    denied: int  # the first word behind which nothing is asked for
    take: int  # the first "take"
    away: int  # the last word of where things are taken to
    past: int  # the last word of a time that is over

    @classmethod
    def of(cls, sentence: Sequence[str], start: int, end: int) -> _Clause:
        denied = take = len(sentence)
        away = past = -1
        wished = compared = False
        for at in range(start, end):
            word = sentence[at]
            if word == "like":
                denies = not wished
            elif word == "as":
                denies, compared = compared, True  # "as slow as"; a single one denies what stands two words behind it
            else:
                denies = word in words_of("not_asked") or word.endswith("n't")
                before = sentence[at - 1] if at > start else ""
                after = sentence[at + 1] if at + 1 < end else ""
                if (before, word) in _ASKS or (word, after) in _ASKS:
                    denies = False  # "you forgot the donkey"
                elif (before, word) in _NOT_THERE or (word in ("a", "an") and _is_said_to_be(sentence, start, at)):
                    denies = True
            denied = min(denied, at) if denies else denied
            wished = wished or word in _WOULD
            take = min(take, at) if word == "take" else take
            away = at if word in _AWAY else away
            over = word in _PAST or (word == "had" and at > start and sentence[at - 1] in ("i", "we"))
            past = at if over else past
        return cls(start, end, denied, take, away, past)


def _is_said_to_be(sentence: Sequence[str], start: int, at: int) -> bool:
    """Whether the article at `at` begins what something is said to be: "this machine is a snail", "is it a plane"."""
    before = sentence[at - 1] if at > start else ""
    if before == "be" and at - 3 >= start and sentence[at - 2] == "to":
        return sentence[at - 3].startswith(("want", "wish"))  # "the cat wanted to be a tiger"
    if before == "it" and at - 2 >= start and sentence[at - 2] == "is":
        return True
    return before in _IS and sentence[start] in _ABOUT_ITSELF


def unknown_things(sentence: Sequence[str], lexicon: Lexicon) -> list[str]:
    """Nouns of things that are asked for and no label names, in order."""
    mentions, clauses = lexicon.mentions(sentence), Clauses(sentence)
    starts = {m.start for m in mentions}
    found = [
        m.noun
        for m in mentions
        if not m.label and (m.plural or m.end not in starts) and _is_a_noun(sentence, m) and clauses.ask_for(m)
    ]
    taken = {i for m in mentions for i in range(m.start, m.end)}
    rare = [i for i in range(1, len(sentence)) if i not in taken and _is_rare(sentence, i, lexicon)]
    return found + [sentence[i] for i in rare if clauses.ask_for(Mention(sentence[i], "", i, i + 1, False))]


def _is_a_noun(sentence: Sequence[str], mention: Mention) -> bool:
    """Whether a word that may be none is one here; of what is often told of, whether it has a place or is ordered."""
    if mention.end == len(sentence) and set(sentence[: mention.start]) <= _ALONE:
        return True  # "And a clown."
    before = sentence[max(0, mention.start - 2) : mention.start]
    counted = [w for w in before if w in ("a", "an", "another", "one") or w in numbers()]
    if mention.noun in people():
        following = sentence[mention.end] if mention.end < len(sentence) else ""
        ordered = list(sentence[:2]) in _WHAT_ABOUT
        return bool(counted) and (ordered or following not in words_of("tells"))
    if mention.noun in often_told():
        wanted = bool(words_of("orders") & set(sentence[: mention.start])) or list(sentence[:2]) in _WHAT_ABOUT
        return bool(counted) and (
            wanted or bool(words_of("place_words") & set(sentence[mention.end : mention.end + _NEAR]))
        )
    if mention.noun not in words_of("needs_article"):
        return True
    if before[-1:] == [":"] and words_of("place_words") & set(before):
        return True  # "left: lamp"
    return any(w in words_of("determiners") or w in numbers() for w in before)


def _is_placed(sentence: Sequence[str], at: int) -> bool:
    """Whether the words from `at` on begin by saying where it is."""
    near = sentence[at : at + _NEAR]
    if _TIMES & set(sentence[at : at + _NEAR + 2]) and "middle" in near:
        return False
    return bool(near) and (near[0] in words_of("posture") or bool(words_of("place_words") & set(near)))


def _is_rare(sentence: Sequence[str], at: int, lexicon: Lexicon) -> bool:
    """Whether a word of no list is a noun nevertheless: counted, and placed right behind it ("an okapi waits")."""
    word, before = sentence[at], sentence[at - 1]
    if not word.isalpha() or len(word) < _SHORTEST_RARE or word.endswith(("ly", "ing", "ed")):
        return False
    if before not in ("a", "an", "another") and before not in numbers():
        return False
    lists = ("common", "place_words", "posture", "determiners", "not_asked", "crowds")
    if any(word in words_of(name) for name in lists) or word in numbers():
        return False
    following = sentence[at + 1] if at + 1 < len(sentence) else ""
    if following not in words_of("posture") and not (following in _PREPOSITIONS and _is_placed(sentence, at + 1)):
        return False
    return not difflib.get_close_matches(word, lexicon.known_words, n=1, cutoff=_MISSPELT)
