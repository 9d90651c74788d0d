"""Places that contradict each other: one thing at two ends of the picture, or left of what is left of it.

A text in which something moves, is corrected or is compared with an earlier time may well name two places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mgcc_runtime.notes.lexicon import Lexicon, Mention, words_of

_SPLITS = frozenset({",", "and", "while", "whereas", ":", "("})
_PRONOUNS = frozenset({"it", "he", "she"})
_RELATIVE = frozenset({"which", "who", "that"})
_ASIDE = re.compile(r"(?:on |to )?(left|right) (?:side )?of @(\d+)")
_LEVEL = re.compile(r"\b(above|over|below|under|underneath|beneath) @(\d+)")
_COLUMN = re.compile(r"\b(?:on|at|in|to|by|along|top|bottom|upper|lower) (left|right)\b")
_ROW = re.compile(r"\b(?:on|at|in|to|by|along) (?:right )?(top|upper|bottom|lower)\b")
_LOW = {"left": 0, "top": 0, "upper": 0, "right": 2, "bottom": 2, "lower": 2}
_ONE_THING = re.compile(r"\b(?:(?:only|just)(?: the)? one|one and the same|same time|both places)\b")
_COMPARED = {"higher": "above", "lower": "below"}
_BEFORE = {"left": True, "above": True, "over": True, "right": False}  # the others are below


@dataclass
class _Places:
    """What was said of columns or of rows: where things are, and which lies before which."""

    at: dict[int, set[int]] = field(default_factory=dict)
    before: set[tuple[int, int]] = field(default_factory=set)

    def wrong(self) -> Iterator[int]:
        """Things of which no place is left; of those that lie in a circle, the first."""
        yield from (thing for thing, ends in self.at.items() if len(ends) > 1)
        yield from [first for first, second in sorted(self.before) if self._reaches(second, first)][:1]
        for first, second in sorted(self.before):
            if min(self.at.get(first, {0})) > max(self.at.get(second, {2})):
                yield first

    def _reaches(self, start: int, goal: int) -> bool:
        seen, waiting = set[int](), [start]
        while waiting:
            here = waiting.pop()
            if here == goal:
                return True
            if here not in seen:
                seen.add(here)
                waiting += [b for a, b in self.before if a == here]
        return False


class _Reader:
    """Reads the sentences of one text, thing by thing; a label's second indefinite noun is another thing."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self.columns, self.rows = _Places(), _Places()
        self.labels: list[str] = []
        self._pronouns = set[str]()
        self._last: int | None = None  # what the last clause was about
        self._named: int | None = None  # the last thing of it

    def read(self, sentence: Sequence[str]) -> None:
        self._pronouns |= _PRONOUNS & set(sentence)
        mentions = {m.start: m for m in self._lexicon.mentions(sentence)}
        words: list[str] = []
        at = 0
        while at < len(sentence):
            mention = mentions.get(at)
            if mention is not None:
                words.append(f"@{self._thing(sentence, mention)}")
                at = mention.end
                continue
            if sentence[at] not in words_of("dropped"):
                words.append(sentence[at])
            at += 1
        clauses = list(_clauses(words))
        for number, clause in enumerate(clauses):
            following = clauses[number + 1] if number + 1 < len(clauses) else []
            if not _things(clause) and _things(following) and not _says_where(following):
                continue  # "on the left, a cat": the cat's place
            self._clause(clause)

    def _thing(self, sentence: Sequence[str], mention: Mention) -> int:
        before = sentence[max(0, mention.start - 3) : mention.start]
        name = mention.label or mention.noun
        if mention.plural or {"a", "an"} & set(before) or name not in self.labels:
            self.labels.append(name)
            return len(self.labels) - 1
        return len(self.labels) - 1 - self.labels[::-1].index(name)

    def _clause(self, words: list[str]) -> None:
        things, text = _things(words), " ".join(words)
        subject = self._subject(words, text)
        if subject is None:
            return
        for side, other in _ASIDE.findall(text):
            self._ordered(self.columns, subject, int(other), side)
        for side, other in _LEVEL.findall(text):
            self._ordered(self.rows, subject, int(other), side)
        rest = _LEVEL.sub(" ", _ASIDE.sub(" ", text))
        for pattern, places in ((_COLUMN, self.columns), (_ROW, self.rows)):
            for side in pattern.findall(rest):
                places.at.setdefault(subject, set()).add(_LOW[side])
        self._last, self._named = subject, things[-1] if things else self._named

    def _subject(self, words: list[str], text: str) -> int | None:
        """What the clause is about; None where several things may be meant."""
        if words and words[0] in _RELATIVE:
            return self._named
        if words and words[0] in _PRONOUNS:
            return self._last if len(self.labels) == len(self._pronouns) == 1 else None
        anchors = {int(other) for pattern in (_ASIDE, _LEVEL) for _, other in pattern.findall(text)}
        return next((thing for thing in _things(words) if thing not in anchors), self._last)

    def _ordered(self, places: _Places, subject: int, other: int, side: str) -> None:
        if subject != other:
            places.before.add((subject, other) if _BEFORE.get(side, False) else (other, subject))

    def wrong(self) -> list[str]:
        """Labels of things that are told to be where they cannot be; of twins nothing is known for sure."""
        every = [*self.columns.wrong(), *self.rows.wrong()]
        return [self.labels[thing] for thing in every if self.labels.count(self.labels[thing]) == 1]


def _clauses(words: Sequence[str]) -> Iterator[list[str]]:
    clause: list[str] = []
    for word in words:
        if word in _SPLITS:
            yield clause
            clause = []
        else:
            clause.append(word)
    yield clause


def _things(words: Iterable[str]) -> list[int]:
    return [int(word[1:]) for word in words if word.startswith("@")]


def _says_where(words: Sequence[str]) -> bool:
    text = " ".join(words)
    return any(pattern.search(text) for pattern in (_ASIDE, _LEVEL, _COLUMN, _ROW))


def _levelled(sentence: Sequence[str]) -> list[str]:
    """ "higher than" is above, "lower than" below."""
    found = list(sentence)
    for at in range(len(found) - 1, 0, -1):
        if found[at] == "than" and found[at - 1] in _COMPARED:
            found[at - 1 : at + 1] = [_COMPARED[found[at - 1]]]
    return found


def contradicted(sentences: Sequence[Sequence[str]], lexicon: Lexicon) -> list[str]:
    """Labels of the things of one text that are told to be at two places at once, each once."""
    one = any(_ONE_THING.search(" ".join(sentence)) for sentence in sentences)
    if not one and any(word in words_of("changes") or word.endswith("n't") for s in sentences for word in s):
        return []
    reader = _Reader(lexicon)
    for sentence in sentences:
        reader.read(_levelled(sentence))
    return list(dict.fromkeys(reader.wrong()))
