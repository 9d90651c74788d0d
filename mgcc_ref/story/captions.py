"""Canonical captions: a scene in a closed vocabulary, for contrastive training and for the UNet's text side."""

from __future__ import annotations

import numpy as np

from mgcc_ref.story.world.layout_words import PLACES, place_of
from mgcc_ref.story.world.scene import Background, PlacedObject, Scene, Size
from mgcc_ref.story.world.sprites import LABELS

COMMA = ","

#: All words of captions, each once. Trained weights depend on their order.
CAPTION_WORDS: tuple[str, ...] = tuple(
    dict.fromkeys(
        [COMMA]
        + [background.value for background in Background]
        + [size.value for size in Size]
        + [place.value for place in PLACES]
        + [word for label in LABELS for word in label.split()]
    )
)


def canonical_caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """Background, then `, SIZE LABEL PLACE` for each object; e.g. "night , large fox bottom-left , small cat right".

    Objects come in reading order (rows of the grid, then x), or shuffled if `rng` is given. Five objects take at most
    26 words, so 28 with a begin and an end token.
    """
    objects = sorted(scene.objects, key=_reading_order)
    if rng is not None:
        objects = [objects[i] for i in rng.permutation(len(objects))]
    return _join([scene.background.value, *(_describe(item) for item in objects)])


def paraphrase_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A true but partial caption in the same vocabulary: fewer objects, sizes, places or the background left out.

    It always names at least the background or one object.
    """
    objects = [scene.objects[i] for i in rng.permutation(len(scene.objects))]
    if objects and rng.random() < 0.5:
        objects = objects[: int(rng.integers(1, len(objects) + 1))]
    size_chance = (0.0, 0.5, 1.0)[int(rng.integers(3))]
    place_chance = (0.0, 0.5, 1.0, 1.0)[int(rng.integers(4))]
    clauses = [
        _describe(item, with_size=rng.random() < size_chance, with_place=rng.random() < place_chance)
        for item in objects
    ]
    if not clauses or rng.random() < 0.75:
        clauses.insert(0 if rng.random() < 0.8 else len(clauses), scene.background.value)
    return _join(clauses)


def _reading_order(item: PlacedObject) -> tuple[int, float, float]:
    x, y = item.centre
    return PLACES.index(place_of(item.box)) // 3, x, y


def _describe(item: PlacedObject, *, with_size: bool = True, with_place: bool = True) -> str:
    words = [item.size.value] if with_size else []
    words.append(item.label)
    if with_place:
        words.append(place_of(item.box).value)
    return " ".join(words)


def _join(clauses: list[str]) -> str:
    return f" {COMMA} ".join(clauses)
