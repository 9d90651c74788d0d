"""Stories: five captions and four images that lead to the scene to draw."""

from __future__ import annotations

import bisect
import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mgcc_ref.story.narrator import Event, Narrator
from mgcc_ref.story.wording.phrases import SETTING_PHRASES, Split, connected, pick, sentence
from mgcc_ref.story.world.facts import Cast, ObjectFact, Source, Told
from mgcc_ref.story.world.scene import MAX_OBJECTS, Scene

CAPTIONS = 5
MAX_CAPTION_WORDS = 20
_CONNECTOR_WORDS = 4  # of the longest connector
_MORE_CHANCE = 0.3  # that a caption has a second event

Part = str | Scene


class Setting(enum.StrEnum):
    """How much of a story is shown."""

    CAPTION_1 = "1"
    CAPTIONS_5 = "5"
    CAPTIONS_5_IMAGES_4 = "5+4"


@dataclass(frozen=True)
class Turn:
    """One caption, the scene after it, and what has been told about that scene so far."""

    caption: str
    scene: Scene
    facts: tuple[ObjectFact, ...]
    background_told: Told

    @property
    def told(self) -> tuple[Told, ...]:
        """The source of each fact that the scene needs."""
        return (self.background_told, *(t for fact in self.facts for t in (fact.named, fact.placed)))


@dataclass(frozen=True)
class Story:
    """Turns of a story; the last one's scene is the target, and its own picture is never shown."""

    turns: tuple[Turn, ...]
    split: Split

    @property
    def captions(self) -> tuple[str, ...]:
        return tuple(turn.caption for turn in self.turns)

    @property
    def target(self) -> Scene:
        return self.turns[-1].scene

    @property
    def facts(self) -> tuple[ObjectFact, ...]:
        """The position that the context gives for each object of the target, in its order."""
        return self.turns[-1].facts

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every caption and image in order; an image is the Scene to render."""
        return self.view(Setting.CAPTIONS_5_IMAGES_4)

    def view(self, setting: Setting) -> tuple[Part, ...]:
        """The parts that `setting` shows.

        CAPTIONS_5_IMAGES_4: all captions, each but the last followed by its scene's image; they tell the whole
        target. CAPTIONS_5: no images, so facts that only an image shows are lost (what "my friend" is, its first
        position and size, a background that was only shown). CAPTION_1: the last caption alone; it tells
        only changes, so the background and all unchanged objects are lost too.
        """
        if setting is Setting.CAPTION_1:
            return (self.turns[-1].caption,)
        if setting is Setting.CAPTIONS_5:
            return self.captions
        before = [part for turn in self.turns[:-1] for part in (turn.caption, turn.scene)]
        return (*before, self.turns[-1].caption)

    def is_told(self, setting: Setting) -> bool:
        """Whether the parts of `setting` tell the whole target."""
        last = len(self.turns)
        told = self.turns[-1].told
        if setting is Setting.CAPTION_1:
            return all(t.source is Source.TEXT and t.at == last for t in told)
        if setting is Setting.CAPTIONS_5:
            return all(t.source is Source.TEXT for t in told)
        return all(t.source is Source.TEXT or t.at < last for t in told)

    def at_turn(self, turn: int) -> Story:
        """The story up to caption `turn` (from 1); that caption's scene is the target."""
        if not 1 <= turn <= len(self.turns):
            raise ValueError(f"turn {turn} of a story with {len(self.turns)} captions; choose 1 to {len(self.turns)}")
        return Story(self.turns[:turn], self.split)

    def drawable_turns(self) -> tuple[int, ...]:
        """Turns (from 1) whose scene can be drawn from the parts before its image; the last is always one."""
        every = range(1, len(self.turns) + 1)
        return tuple(n for n in every if self.at_turn(n).is_told(Setting.CAPTIONS_5_IMAGES_4))


def make_story(seed: int | np.random.Generator, split: Split = Split.TRAIN) -> Story:
    """A story with the phrasings of `split`; the same seed and split give the same story."""
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng([seed, list(Split).index(split)])
    narrator = Narrator(rng, split)
    goal = int(rng.integers(1, MAX_OBJECTS + 1))
    turns = []
    for number in range(1, CAPTIONS + 1):
        narrator.caption = number
        caption = _first_caption(narrator, goal) if number == 1 else _later_caption(narrator, goal)
        turns.append(_turn(caption, narrator.cast))
    return Story(tuple(turns), split)


def stories(seed: int, split: Split = Split.TRAIN) -> Iterator[Story]:
    """Endless stories; the i-th depends on (seed, i, split) only."""
    index = 0
    while True:
        yield make_story(np.random.default_rng([seed, index, list(Split).index(split)]), split)
        index += 1


def _turn(caption: str, cast: Cast) -> Turn:
    scene = Scene(cast.background, tuple(m.item for m in cast.members))
    return Turn(caption, scene, cast.object_facts(), cast.background_told)


def _first_caption(narrator: Narrator, goal: int) -> str:
    """A caption that tells the background and the first object, or leaves the object or both to the image."""
    rng = narrator.rng
    draw = rng.random()
    if draw < 0.3:
        shown = narrator.appear_in_image()
        assert shown is not None  # an empty scene always has room
        if draw < 0.15:
            return sentence(f"{shown}, {pick(SETTING_PHRASES[narrator.cast.background], rng)}")
        narrator.show_background()
        return sentence(shown)
    empty, text = narrator.cast, ""
    while not 0 < _words(text) <= MAX_CAPTION_WORDS:
        narrator.cast = empty
        appears = narrator.appear_place()
        if appears is None:
            continue
        if draw < 0.5:
            text = f"{pick(SETTING_PHRASES[empty.background], rng)}, {appears}"
        else:
            text = f"{sentence(narrator.opening())} {appears[:1].upper()}{appears[1:]}"
    text = sentence(text)
    more = goal > 1 and rng.random() < _MORE_CHANCE
    return _extend(narrator, text, (narrator.appear_place, narrator.appear_relation)) if more else text


def _later_caption(narrator: Narrator, goal: int) -> str:
    """At most two events, sometimes with a sentence that changes nothing."""
    rng = narrator.rng
    left = CAPTIONS - narrator.caption
    missing = goal - len(narrator.cast.members)
    if left > 0 and missing <= left and rng.random() < 0.08:
        return sentence(narrator.distract())
    first = _tell(narrator, goal)
    if rng.random() < 0.35 and _is_plain(first):
        first = connected(first, narrator.split, rng)
    text = sentence(first)
    missing = goal - len(narrator.cast.members)
    if missing > left:
        text = _extend(narrator, text, (narrator.appear_place, narrator.appear_relation), tries=4)
    elif rng.random() < _MORE_CHANCE:
        text = _extend(narrator, text, tuple(event for event, _ in _events(narrator, goal)))
    if rng.random() < 0.2:
        longer = f"{text} {sentence(narrator.distract())}"
        text = longer if _words(longer) <= MAX_CAPTION_WORDS else text
    return text


def _tell(narrator: Narrator, goal: int) -> str:
    """The text of one event that is possible now."""
    while True:
        events = _events(narrator, goal)
        bounds = list(itertools.accumulate(weight for _, weight in events))
        draw = float(narrator.rng.random()) * bounds[-1]
        before = narrator.cast
        text = events[bisect.bisect_left(bounds, draw)][0]()
        if text is not None and _words(text) <= MAX_CAPTION_WORDS - _CONNECTOR_WORDS:
            return text
        narrator.cast = before


def _extend(narrator: Narrator, text: str, choices: tuple[Event, ...], tries: int = 1) -> str:
    """`text` with one more event, or `text` alone if none of `tries` events was possible and short enough."""
    before = narrator.cast
    more = pick(choices, narrator.rng)()
    if more is None:
        return text if tries == 1 else _extend(narrator, text, choices, tries - 1)
    if _is_plain(more) and not any(mark in text[:-1] for mark in _MARKS) and narrator.rng.random() < 0.3:
        longer = f"{text[:-1]}, and {more}."
    else:
        longer = f"{text} {sentence(more)}"
    if _words(longer) > MAX_CAPTION_WORDS:
        narrator.cast = before
        return text if tries == 1 else _extend(narrator, text, choices, tries - 1)
    return longer


def _events(narrator: Narrator, goal: int) -> list[tuple[Event, float]]:
    """Events and their weights: they lead to `goal` objects, and in the last caption none leaves a fact to an image."""
    count = len(narrator.cast.members)
    missing = goal - count
    grow, shrink = (5.0, 0.2) if missing > 0 else (0.3, 2.5 if missing < 0 else 0.6)
    events: list[tuple[Event, float]] = [
        (narrator.appear_place, grow),
        (narrator.appear_relation, grow),
        (narrator.stand_by_new, 0.5 * grow),
        (narrator.appear_two, 2.0 if missing > 1 else 0.05),
        (narrator.move_place, 1.5),
        (narrator.move_relation, 1.2),
        (narrator.leave, shrink),
        (narrator.leave_both, shrink),
        (narrator.swap, 0.9),
        (narrator.resize, 0.8),
        (narrator.travel, 0.8),
    ]
    if narrator.caption < CAPTIONS:
        events.append((narrator.appear_in_image, 0.5 if missing > 0 else 0.05))
        events.append((narrator.travel_in_image, 0.3))
    return events


_MARKS = ".?!:,"
_PLAIN_STARTS = frozenset({"a", "an", "another", "it", "my", "our", "the", "there", "two", "we", "someone", "i"}) | {
    "add",
    "put",
    "draw",
    "move",
    "remove",
    "take",
    "swap",
    "make",
    "paint",
}


def _is_plain(text: str) -> bool:
    """Whether a connector can precede `text`: one clause that starts with its subject."""
    first, second = text.lower().split()[:2]
    starts = first in _PLAIN_STARTS and (first, second) != ("the", "next")
    return starts and " now" not in text and not any(mark in text for mark in _MARKS)


def _words(text: str) -> int:
    return len(text.split())
