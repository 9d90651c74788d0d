"""Training requests: what the model reads, and the scene that it should draw."""

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
from mgcc_ref.story.world.scene import Scene, render

DIALOGUE_CHANCE = 0.3
LAST_TURN_CHANCE = 0.6
CAPTIONS_ONLY_CHANCE = 0.25


class Points(enum.Enum):
    """At which points of a conversation a picture is asked for."""

    WHOLE = enum.auto()  # where all that the scene holds has been told
    ALL = enum.auto()  # wherever something has been named: the scene is what has been named, and may stand anywhere


@dataclass(frozen=True)
class Request:
    """One picture to draw. `facts` say where the context puts each object of `target`, in its order."""

    parts: tuple[Part, ...]
    image_scenes: tuple[Scene, ...]  # of the parts that are images, in order
    target: Scene
    facts: tuple[ObjectFact, ...]


@dataclass(frozen=True)
class DrawPoint:
    """After the first `parts` parts of a conversation, `target` can be drawn."""

    parts: int
    target: Scene
    facts: tuple[ObjectFact, ...]


@dataclass(frozen=True)
class Conversation:
    """A story or dialogue and every point at which all that its picture needs has been told.

    Of what follows the last point no picture is asked for.
    """

    parts: tuple[Part, ...]
    scenes: tuple[Scene | None, ...]  # of each part that is an image
    points: tuple[DrawPoint, ...]

    def request(self, point: int) -> Request:
        """The conversation up to `points[point]`."""
        here = self.points[point]
        scenes = tuple(scene for scene in self.scenes[: here.parts] if scene is not None)
        return Request(self.parts[: here.parts], scenes, here.target, here.facts)


def training_conversation(
    seed: int, index: int, split: Split = Split.TRAIN, points: Points = Points.WHOLE
) -> Conversation:
    """Conversation `index` of the endless training set `seed`.

    Three in ten are dialogues; the others are stories with images, a quarter of them without where the text alone
    tells everything.
    """
    rng = np.random.default_rng([seed, index])
    if rng.random() < DIALOGUE_CHANCE:
        return _of_dialogue(make_dialogue(rng, split), points)
    story = make_story(rng, split)
    no_images = rng.random() < CAPTIONS_ONLY_CHANCE and story.is_told(Setting.CAPTIONS_5)
    return story_conversation(story, Setting.CAPTIONS_5 if no_images else Setting.CAPTIONS_5_IMAGES_4, points)


def training_request(seed: int, index: int, split: Split = Split.TRAIN) -> Request:
    """A conversation of the set cut at one of its points: mostly the last, where the most has happened."""
    conversation = training_conversation(seed, index, split)
    rng = np.random.default_rng([seed, index, 1])
    count = len(conversation.points)
    return conversation.request(count - 1 if rng.random() < LAST_TURN_CHANCE else int(rng.integers(count)))


def story_conversation(story: Story, setting: Setting, points: Points = Points.WHOLE) -> Conversation:
    """A story as `setting` shows it; its points are the turns that `setting` tells wholly, and always the last."""
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
    """Whether something is told before the picture of turn `number`."""
    return lambda told: told.source is Source.TEXT or (images and told.at < number)


def _conversation(shown: tuple[str | Scene, ...], points: tuple[DrawPoint, ...]) -> Conversation:
    """With every scene that is shown as its picture."""
    parts = tuple(part if isinstance(part, str) else Image.fromarray(render(part)) for part in shown)
    return Conversation(parts, tuple(part if isinstance(part, Scene) else None for part in shown), points)


def _named_so_far(point: DrawPoint, shown: Callable[[Told], bool]) -> list[DrawPoint]:
    """`point` with the things that were named alone, and places as far as they were told; none if no thing was."""
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
    """A telling; after every text of it a picture may be asked for."""
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
