"""Training requests: what the model reads, and the scene that it should draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mgcc_ref.prompting import Part
from mgcc_ref.story.dialogues import DialogueSetting, make_dialogue
from mgcc_ref.story.phrases import Split
from mgcc_ref.story.scene import Scene, render
from mgcc_ref.story.stories import Setting, make_story

DIALOGUE_CHANCE = 0.2
LAST_TURN_CHANCE = 0.6
CAPTIONS_ONLY_CHANCE = 0.25


@dataclass(frozen=True)
class Request:
    parts: tuple[Part, ...]
    image_scenes: tuple[Scene, ...]  # of the parts that are images, in order
    target: Scene


def training_request(seed: int, index: int, split: Split = Split.TRAIN) -> Request:
    """Request `index` of the endless training set `seed`.

    Most are whole stories with images; a fifth are dialogues; some stories are cut after an earlier caption, some
    have no images where the text alone tells everything, so that a conversation can be drawn at every turn.
    """
    rng = np.random.default_rng([seed, index])
    if rng.random() < DIALOGUE_CHANCE:
        dialogue = make_dialogue(rng, split)
        settings = [s for s in DialogueSetting if dialogue.is_told(s)] or [DialogueSetting.ROUNDS_10]
        return Request(dialogue.view(settings[rng.integers(len(settings))]), (), dialogue.target)
    story = make_story(rng, split)
    if rng.random() >= LAST_TURN_CHANCE:
        turns = story.drawable_turns()
        story = story.at_turn(turns[rng.integers(len(turns))])
    no_images = rng.random() < CAPTIONS_ONLY_CHANCE and story.is_told(Setting.CAPTIONS_5)
    parts = story.view(Setting.CAPTIONS_5 if no_images else Setting.CAPTIONS_5_IMAGES_4)
    scenes = tuple(part for part in parts if isinstance(part, Scene))
    pictured = tuple(part if isinstance(part, str) else Image.fromarray(render(part)) for part in parts)
    return Request(pictured, scenes, story.target)
