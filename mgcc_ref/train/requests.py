"""Training requests: the parts that the model reads, and the scene that it should draw."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from mgcc_ref.prompting import Part
from mgcc_ref.story.dialogues import ROUNDS, Dialogue, make_dialogue
from mgcc_ref.story.stories import Setting, Story, make_story
from mgcc_ref.story.telling.tellings import Telling
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.story.world.facts import ObjectFact, Source, Told
from mgcc_ref.story.world.scene import Box, Scene, render

DIALOGUE_CHANCE = 0.3
LAST_TURN_CHANCE = 0.6
CAPTIONS_ONLY_CHANCE = 0.25


class Points(enum.Enum):
    """The points of a conversation at which a picture is asked for."""

    WHOLE = enum.auto()  # after the whole scene has been told
    ALL = enum.auto()  # after any object has been named; the target is the named objects, and untold positions are free


@dataclass(frozen=True)
class Request:
    """One picture to draw. `facts` are the told positions of `target`'s objects, in its order; `regions` as below."""

    parts: tuple[Part, ...]
    image_scenes: tuple[Scene, ...]  # of the parts that are images, in order
    target: Scene
    facts: tuple[ObjectFact, ...]
    regions: tuple[Box | None, ...] = ()


@dataclass(frozen=True)
class DrawPoint:
    """After the first `parts` parts of a conversation, `target` can be drawn.

    `regions` says of each of `target`'s objects where else its centre may be, xyxy as shares of the picture. None, or
    no regions at all: only where it is, with its size.
    """

    parts: int
    target: Scene
    facts: tuple[ObjectFact, ...]
    regions: tuple[Box | None, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """A story, dialogue or telling, and the points at which a picture is asked for.

    No picture is asked for after the last point.
    """

    parts: tuple[Part, ...]
    scenes: tuple[Scene | None, ...]  # of each part that is an image
    points: tuple[DrawPoint, ...]

    def request(self, point: int) -> Request:
        """The request at `points[point]`."""
        here = self.points[point]
        scenes = tuple(scene for scene in self.scenes[: here.parts] if scene is not None)
        return Request(self.parts[: here.parts], scenes, here.target, here.facts, here.regions)


def training_conversation(
    seed: int, index: int, split: Split = Split.TRAIN, points: Points = Points.WHOLE
) -> Conversation:
    """Conversation `index` of the endless training set `seed`.

    Three in ten are dialogues. The others are stories with images; if the text alone tells the whole scene, a quarter
    of these are without images.
    """
    rng = np.random.default_rng([seed, index])
    if rng.random() < DIALOGUE_CHANCE:
        return _of_dialogue(make_dialogue(rng, split), points)
    story = make_story(rng, split)
    no_images = rng.random() < CAPTIONS_ONLY_CHANCE and story.is_told(Setting.CAPTIONS_5)
    return story_conversation(story, Setting.CAPTIONS_5 if no_images else Setting.CAPTIONS_5_IMAGES_4, points)


def training_request(seed: int, index: int, split: Split = Split.TRAIN) -> Request:
    """The request at a point of conversation `index`: mostly at the last point, after the most events."""
    conversation = training_conversation(seed, index, split)
    rng = np.random.default_rng([seed, index, 1])
    count = len(conversation.points)
    return conversation.request(count - 1 if rng.random() < LAST_TURN_CHANCE else int(rng.integers(count)))


def story_conversation(story: Story, setting: Setting, points: Points = Points.WHOLE) -> Conversation:
    """A story as `setting` shows it. Its points are the last turn, turns that `setting` tells wholly, and with
    Points.ALL the others with a named object."""
    last = len(story.turns)
    parts_a_turn = 2 if setting is Setting.CAPTIONS_5_IMAGES_4 else 1
    found = []
    for number, turn in enumerate(story.turns, start=1):
        parts = parts_a_turn * (number - 1) + 1
        if number == last or story.at_turn(number).is_told(setting):
            found.append(DrawPoint(parts, turn.scene, turn.facts))
        elif points is Points.ALL:
            shown = _before(number, images=setting is Setting.CAPTIONS_5_IMAGES_4)
            found += _named_so_far(DrawPoint(parts, turn.scene, turn.facts), shown)
    shown_parts = story.view(setting)
    return _conversation(shown_parts, tuple(found))


def _before(number: int, *, images: bool) -> Callable[[Told], bool]:
    """Whether a fact is told before the picture of turn `number`."""
    return lambda told: told.source is Source.TEXT or (images and told.at < number)


def _conversation(shown: tuple[str | Scene, ...], points: tuple[DrawPoint, ...]) -> Conversation:
    """The conversation of `shown` with each scene rendered as its picture."""
    parts = tuple(part if isinstance(part, str) else Image.fromarray(render(part)) for part in shown)
    return Conversation(parts, tuple(part if isinstance(part, Scene) else None for part in shown), points)


def _named_so_far(point: DrawPoint, shown: Callable[[Told], bool]) -> list[DrawPoint]:
    """`point` with only the named objects and their told positions; empty if none was named."""
    kept = [f.index for f in point.facts if shown(f.named)]
    if not kept:
        return []
    index = {old: new for new, old in enumerate(kept)}
    facts = tuple(
        replace(f, index=index[f.index], anchors=tuple(index[a] for a in f.anchors))
        for f in point.facts
        if f.index in index and shown(f.placed) and index.keys() >= set(f.anchors)
    )
    scene = Scene(point.target.background, tuple(point.target.objects[i] for i in kept))
    return [DrawPoint(point.parts, scene, facts)]


def telling_conversation(telling: Telling) -> Conversation:
    """A telling; its points are the ends of its texts."""
    return _conversation(telling.parts, tuple(DrawPoint(p.parts, p.scene, p.facts) for p in telling.points))


def _of_dialogue(dialogue: Dialogue, points: Points) -> Conversation:
    told = [dialogue.background_told, *(t for fact in dialogue.facts for t in (fact.named, fact.placed))]
    complete = max(t.at for t in told)
    found: list[DrawPoint] = []
    if points is Points.ALL:
        for number in range(1, complete):
            found += _named_so_far(DrawPoint(number, dialogue.target, dialogue.facts), _within(number))
    rounds = sorted({complete, (complete + ROUNDS) // 2, ROUNDS})
    found += [DrawPoint(n, dialogue.target, dialogue.facts) for n in rounds]
    return Conversation(dialogue.parts, (None,) * ROUNDS, tuple(found))


def _within(rounds: int) -> Callable[[Told], bool]:
    return lambda told: told.at <= rounds
