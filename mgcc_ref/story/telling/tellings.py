"""Tellings: training conversations in free words, with a world that is tracked through every clause.

A telling is like a user's text: a caption of several clauses, a story with or without pictures, a list, corrections,
things that leave and come back, and mentions of absent things. The scene to draw is the world's, and is not parsed
from the words.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mgcc_ref.story.telling import appearing, changing
from mgcc_ref.story.telling.state import empty_world
from mgcc_ref.story.telling.teller import Said, Teller
from mgcc_ref.story.telling.words import Register, any_voice
from mgcc_ref.story.wording.phrases import pick
from mgcc_ref.story.world.facts import ObjectFact
from mgcc_ref.story.world.scene import MAX_OBJECTS, Scene

Event = Callable[[Teller], str | None]

_NO_PICTURES, _PICTURE_FIRST = 0.55, 0.8  # cumulative shares of tellings; all after the first may show more pictures
_TEXTS = (1, 1, 2, 3, 3, 4, 4, 5, 6)  # each as likely
_MOST_WORDS = 120  # a telling ends after so many: long contexts take memory
_TRIES = 12
_OPENING_CHANCE, _ASKED_CHANCE = 0.75, 0.12
_LOWER_CASE_CHANCE, _OPEN_END_CHANCE = 0.12, 0.1
_OPENER_CHANCE, _JOINED_CHANCE = 0.25, 0.25
_JOINTS = (", and ", ", then ", " and then ", "; ", " - ", ", ")


@dataclass(frozen=True)
class TellingPoint:
    """After the first `parts` parts, `scene` can be drawn; `facts` are the told positions."""

    parts: int
    scene: Scene
    facts: tuple[ObjectFact, ...]


@dataclass(frozen=True)
class Telling:
    """The shown texts and scenes, the scene after each text, and all clauses up to each text."""

    parts: tuple[str | Scene, ...]
    points: tuple[TellingPoint, ...]
    said: tuple[tuple[Said, ...], ...]


_FIRST: tuple[tuple[Event, float], ...] = (
    (appearing.appear, 4),
    (appearing.listed, 3),
    (appearing.around_one, 2),
    (appearing.between_new, 1),
    (appearing.pair, 1),
    (changing.named_first, 2),
    (changing.wrong_noun, 0.5),
    (changing.wrong_place, 0.5),
)
_LATER: tuple[tuple[Event, float], ...] = (
    (changing.leave, 3),
    (changing.leave_two, 0.7),
    (changing.leave_all_but, 0.6),
    (changing.replace_one, 2),
    (changing.takes_over, 1.2),
    (changing.follow, 1.2),
    (changing.move, 2.5),
    (changing.move_straight, 1),
    (changing.swap, 2),
    (changing.one_of_two, 3),
    (changing.resize, 0.8),
    (changing.travel, 1.2),
    (changing.restate, 0.8),
    (changing.beside_the_point, 3),
    (appearing.come_back, 1.2),
    (appearing.has_by, 1.2),
    (appearing.again, 0.6),
    (changing.mixed_up, 0.4),
)


def make_telling(rng: np.random.Generator) -> Telling:
    """One telling; the same state of `rng` gives the same."""
    while True:
        telling = _Telling(rng).telling()
        if telling.points:
            return telling


class _Telling:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.teller = Teller(empty_world(rng), any_voice(rng), rng)
        self.lower = rng.random() < _LOWER_CASE_CHANCE
        self.open_end = rng.random() < _OPEN_END_CHANCE
        self.asked = rng.random() < _ASKED_CHANCE
        self.parts: list[str | Scene] = []
        self.points: list[TellingPoint] = []
        self.said: list[tuple[Said, ...]] = []

    def telling(self) -> Telling:
        shown, texts = self.rng.random(), pick(_TEXTS, self.rng)
        if _NO_PICTURES <= shown < _PICTURE_FIRST:
            self._begin_with_a_picture()
        for number in range(texts):
            if sum(len(part.split()) for part in self.parts if isinstance(part, str)) > _MOST_WORDS:
                break
            self._tell(first=not self.teller.world.members, alone=texts == 1)
            if shown >= _NO_PICTURES and number < texts - 1 and self.rng.random() < 0.6 and self.teller.world.members:
                self.parts.append(self.teller.world.scene)
        return Telling(tuple(self.parts), tuple(self.points), tuple(self.said))

    def _begin_with_a_picture(self) -> None:
        for _ in range(int(self.rng.integers(1, MAX_OBJECTS))):
            appearing.newcomer_at(self.teller)
        self.teller.world = self.teller.world.focused(None)
        if self.teller.world.members:
            self.parts.append(self.teller.world.scene)

    def _tell(self, *, first: bool, alone: bool) -> None:
        """The next text."""
        clauses = []
        if first and not any(isinstance(p, str) for p in self.parts) and self.rng.random() < _OPENING_CHANCE:
            clauses.append(changing.opening(self.teller))
        for _ in range(int(self.rng.integers(2, 6) if alone else self.rng.integers(1, 4))):
            clause = self._happening()
            if clause is not None:
                clauses.append(clause)
        if len(clauses) > 1 and first and self.rng.random() < 0.15:
            clauses = [*clauses[1:], clauses[0]] if self._first_is_opening() else clauses
        if not clauses or not self.teller.world.members:
            return
        self.parts.append(self._written(clauses))
        world = self.teller.world
        self.points.append(TellingPoint(len(self.parts), world.scene, world.facts()))
        self.said.append(tuple(self.teller.said))

    def _first_is_opening(self) -> bool:
        """Whether the first clause tells the background; as nothing depends on it, it may come last."""
        return self.teller.said[0].kind == "opening"

    def _happening(self) -> str | None:
        """The clause of an event that is possible now and keeps all told facts true."""
        missing = MAX_OBJECTS - len(self.teller.world.members)
        grow = 1.0 if missing > 2 else 0.4
        events = [(e, w * grow) for e, w in _FIRST]
        if self.teller.world.members:
            events += _LATER
        bounds = list(itertools.accumulate(weight for _, weight in events))
        for _ in range(_TRIES):
            world, said = self.teller.world, len(self.teller.said)
            text = events[bisect.bisect_left(bounds, float(self.rng.random()) * bounds[-1])][0](self.teller)
            if text is not None and self.teller.world.holds:
                return text
            self.teller.world = world
            del self.teller.said[said:]
        return None

    # -- writing -----------------------------------------------------------------------------------------------------

    def _written(self, clauses: list[str]) -> str:
        """The clauses as sentences, some of them joined, in the telling's style."""
        sentences: list[str] = []
        for clause in clauses:
            words = clause
            if self.rng.random() < _OPENER_CHANCE:
                opener = self.teller.voice.pattern("opener", self.rng)
                words = f"{opener}{pick((', ', ' '), self.rng)}{words}"
            joins = sentences and "?" not in words + sentences[-1] and self.rng.random() < _JOINED_CHANCE
            if joins:
                sentences[-1] = f"{sentences[-1]}{pick(_JOINTS, self.rng)}{words}"
            else:
                sentences.append(words)
        text = " ".join(self._sentence(s) for s in sentences)
        if self.asked:
            text = f"{self._sentence(self.teller.voice.pattern('ask', self.rng))} {text}"
        if self.open_end:
            text = text.rstrip(".")
        return text.lower() if self.lower else text

    def _sentence(self, words: str) -> str:
        marks = ("!", ".") if self.teller.voice.register is Register.CHILD else (".", ".", ".", "!")
        closed = words if words[-1] in ".?!" else words + pick(marks, self.rng)
        return closed[0].upper() + closed[1:]
