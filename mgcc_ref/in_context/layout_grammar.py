"""An automaton over the text form of a layout: it gives the characters that may come next.

It accepts only boxes with their corners in order, so its texts need no repair.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mgcc_runtime.layout_text import (
    COORDINATE_ENDS,
    COORDINATE_LENGTH,
    COORDINATES,
    END,
    LABEL_END,
    MAX_LABEL_CHARS,
    MAX_LABEL_WORDS,
    MIN_SIDE,
    longest_line,
)

ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz 0123456789.,:[]\n" + END)

_DONE_SLOT = 5


@dataclass(frozen=True)
class GrammarState:
    """The position in a text. Slot 0 is the label (or END), 1 to 4 are the coordinates, 5 follows END."""

    lines: int = 0
    slot: int = 0
    text: str = ""  # of the current slot
    corner: tuple[int, ...] = ()  # finished coordinates of the current line, in hundredths

    @property
    def done(self) -> bool:
        return self.slot == _DONE_SLOT


@dataclass(frozen=True)
class LayoutGrammar:
    """At most `max_lines` lines, then END.

    `labels` closes the list of labels; without it, a label is one to `max_label_words` words of a to z, at most
    `max_label_chars` long. `min_side` is the least width and height in hundredths of the picture.
    """

    max_lines: int
    labels: tuple[str, ...] = ()
    max_label_words: int = MAX_LABEL_WORDS
    max_label_chars: int = MAX_LABEL_CHARS
    min_side: int = MIN_SIDE

    def __post_init__(self) -> None:
        if self.max_lines < 1:
            raise ValueError(f"max_lines is {self.max_lines}; expected at least 1")
        if not 1 <= self.min_side <= 100:
            raise ValueError(f"min_side is {self.min_side}; expected 1 to 100 hundredths of the picture")
        if self.max_label_words < 1 or self.max_label_chars < 1:
            raise ValueError("a free label needs room for at least one word of one character")
        for label in self.labels:
            if not re.fullmatch(r"[a-z]+( [a-z]+)*", label):
                raise ValueError(f"label {label!r} cannot be written in a layout; expected lower-case words of a to z")

    @cached_property
    def _label_starts(self) -> list[str]:
        """The written forms of the closed list's labels, sorted."""
        return sorted(label + LABEL_END for label in set(self.labels))

    @property
    def longest_line(self) -> int:
        """The largest number of characters in a line."""
        return longest_line(self.labels or ("a" * self.max_label_chars,))

    def advance(self, state: GrammarState, char: str) -> GrammarState | None:
        """The state after one more character, or None if no layout continues with it."""
        if state.done:
            return None
        text = state.text + char
        if state.slot == 0:
            return self._advance_label(state, text)
        return self._advance_coordinate(state, text)

    def advance_text(self, state: GrammarState, text: str) -> GrammarState | None:
        """`advance` over a whole text."""
        for char in text:
            following = self.advance(state, char)
            if following is None:
                return None
            state = following
        return state

    def _advance_label(self, state: GrammarState, text: str) -> GrammarState | None:
        if text == END:
            return GrammarState(state.lines, _DONE_SLOT)
        if END.startswith(text):
            return replace(state, text=text)
        if state.lines == self.max_lines or not self._begins_label(text):
            return None
        if text.endswith(LABEL_END):
            return GrammarState(state.lines, 1)
        return replace(state, text=text)

    def _begins_label(self, text: str) -> bool:
        if self.labels:
            return begins_any(self._label_starts, text)
        label, colon, rest = text.partition(":")
        if colon:
            return _is_label(label) and LABEL_END.startswith(colon + rest)
        words = label.split(" ")
        if len(words) > self.max_label_words or len(label) + (words[-1] == "") > self.max_label_chars:
            return False  # a space needs room for a letter after it
        return _is_label(label.removesuffix(" "))

    def _advance_coordinate(self, state: GrammarState, text: str) -> GrammarState | None:
        low, high = self._bounds(state)
        number, tail = text[:COORDINATE_LENGTH], text[COORDINATE_LENGTH:]
        end = COORDINATE_ENDS[state.slot - 1]
        if not begins_any(COORDINATES, number, low, high + 1) or not end.startswith(tail):
            return None
        if tail != end:
            return replace(state, text=text)
        if state.slot == 4:
            return GrammarState(state.lines + 1)
        return GrammarState(state.lines, state.slot + 1, "", (*state.corner, COORDINATES.index(number)))

    def _bounds(self, state: GrammarState) -> tuple[int, int]:
        """Least and largest value of the current coordinate, in hundredths."""
        if state.slot <= 2:
            return 0, 100 - self.min_side
        return state.corner[state.slot - 3] + self.min_side, 100


def begins_any(texts: Sequence[str], start: str, low: int = 0, high: int | None = None) -> bool:
    """Whether one of the sorted `texts[low:high]` begins with `start`."""
    high = len(texts) if high is None else high
    found = bisect_left(texts, start, low, high)
    return found < high and texts[found].startswith(start)


def _is_label(text: str) -> bool:
    return all(word.isascii() and word.isalpha() and word.islower() for word in text.split(" "))
