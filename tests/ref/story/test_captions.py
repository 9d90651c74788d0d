"""Captions: a closed vocabulary, bounded length, true of the scene."""

from __future__ import annotations

import numpy as np

from mgcc_ref.story.captions import CAPTION_WORDS, canonical_caption, paraphrase_caption
from mgcc_ref.story.world.layout_words import place_of
from mgcc_ref.story.world.scene import Background, Scene, place, random_scene

MAX_WORDS = 30  # the text tower has 32 positions, two of them for begin and end


def test_example() -> None:
    scene = Scene(Background.NIGHT, (place("palm tree", (0.8, 0.5), 30), place("fox", (0.2, 0.8), 55)))
    assert canonical_caption(scene) == "night , small palm tree right , large fox bottom-left"


def test_closed_and_short() -> None:
    rng = np.random.default_rng(0)
    words = set(CAPTION_WORDS)
    assert len(words) == len(CAPTION_WORDS)
    for _ in range(300):
        scene = random_scene(rng)
        caption = canonical_caption(scene, rng)
        assert sorted(caption.split(" , ")) == sorted(canonical_caption(scene).split(" , "))
        for text in (caption, paraphrase_caption(scene, rng)):
            assert 1 <= len(text.split()) <= MAX_WORDS
            assert set(text.split()) <= words


def test_paraphrases_are_true_and_partial() -> None:
    rng = np.random.default_rng(1)
    shorter = 0
    for _ in range(300):
        scene = random_scene(rng)
        whole = canonical_caption(scene)
        text = paraphrase_caption(scene, rng)
        shorter += len(text) < len(whole)
        for clause in text.split(" , "):
            if clause == scene.background.value:
                continue
            assert any(
                set(clause.split()) <= {o.size.value, *o.label.split(), place_of(o.box).value} for o in scene.objects
            )
    assert shorter > 150
