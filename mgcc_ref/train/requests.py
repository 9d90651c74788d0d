"""Training requests: what the model reads, and the scene that it should draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mgcc_ref.prompting import Part
from mgcc_ref.story.dialogues import ROUNDS, Dialogue, make_dialogue
from mgcc_ref.story.facts import ObjectFact
from mgcc_ref.story.phrases import Split
from mgcc_ref.story.scene import Scene, render
from mgcc_ref.story.stories import Setting, Story, make_story

DIALOGUE_CHANCE = 0.3
LAST_TURN_CHANCE = 0.6
CAPTIONS_ONLY_CHANCE = 0.25


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
    """A story or dialogue and every point at which all that its picture needs has been told; the last is the end."""

    parts: tuple[Part, ...]
    scenes: tuple[Scene | None, ...]  # of each part that is an image
    points: tuple[DrawPoint, ...]

    def request(self, point: int) -> Request:
        """The conversation up to `points[point]`."""
        here = self.points[point]
        scenes = tuple(scene for scene in self.scenes[: here.parts] if scene is not None)
        return Request(self.parts[: here.parts], scenes, here.target, here.facts)


def training_conversation(seed: int, index: int, split: Split = Split.TRAIN) -> Conversation:
    """Conversation `index` of the endless training set `seed`.

    Three in ten are dialogues; the others are stories with images, a quarter of them without where the text alone
    tells everything.
    """
    rng = np.random.default_rng([seed, index])
    if rng.random() < DIALOGUE_CHANCE:
        return _of_dialogue(make_dialogue(rng, split))
    story = make_story(rng, split)
    no_images = rng.random() < CAPTIONS_ONLY_CHANCE and story.is_told(Setting.CAPTIONS_5)
    return story_conversation(story, Setting.CAPTIONS_5 if no_images else Setting.CAPTIONS_5_IMAGES_4)


def training_request(seed: int, index: int, split: Split = Split.TRAIN) -> Request:
    """A conversation of the set cut at one of its points: mostly the last, where the most has happened."""
    conversation = training_conversation(seed, index, split)
    rng = np.random.default_rng([seed, index, 1])
    count = len(conversation.points)
    return conversation.request(count - 1 if rng.random() < LAST_TURN_CHANCE else int(rng.integers(count)))


def story_conversation(story: Story, setting: Setting) -> Conversation:
    """A story as `setting` shows it; its points are the turns that `setting` tells wholly, and always the last."""
    last = len(story.turns)
    every = [n for n in range(1, last) if story.at_turn(n).is_told(setting)] + [last]
    parts_a_turn = 2 if setting is Setting.CAPTIONS_5_IMAGES_4 else 1
    points = tuple(
        DrawPoint(parts_a_turn * (n - 1) + 1, story.turns[n - 1].scene, story.turns[n - 1].facts) for n in every
    )
    shown = story.view(setting)
    parts = tuple(part if isinstance(part, str) else Image.fromarray(render(part)) for part in shown)
    return Conversation(parts, tuple(part if isinstance(part, Scene) else None for part in shown), points)


def _of_dialogue(dialogue: Dialogue) -> Conversation:
    told = [dialogue.background_told, *(t for fact in dialogue.facts for t in (fact.named, fact.placed))]
    complete = max(t.at for t in told)
    rounds = sorted({complete, (complete + ROUNDS) // 2, ROUNDS})
    points = tuple(DrawPoint(n, dialogue.target, dialogue.facts) for n in rounds)
    return Conversation(dialogue.parts, (None,) * ROUNDS, points)
