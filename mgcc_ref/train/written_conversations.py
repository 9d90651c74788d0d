"""Training conversations from written stories, for the grounder and for `align`.

A written state tells a third of the picture, not a box. A thing that stays where a picture showed it has that box as
its target; of any other the target is a region, in which every centre is right (`DrawPoint.regions`).
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mgcc_ref.prompting import Part
from mgcc_ref.story.free_english import WantedPlace
from mgcc_ref.story.telling.apart import keeps_apart
from mgcc_ref.story.world.scene import Background, Box, PlacedObject, Scene, fits, place, render
from mgcc_ref.story.written.stories import WrittenPart, WrittenScene, WrittenStory, written_stories
from mgcc_ref.story.written.variants import any_variant
from mgcc_ref.train.requests import Conversation, DrawPoint

_SHOWN_PX, _TOLD_PX = (29, 37), (30, 46)  # longer sides of things in shown pictures and in told scenes
_TRIES = 60


class Target(enum.Enum):
    """What a point of a conversation has to tell."""

    LAYOUT = enum.auto()  # things; the background may be any
    SCENE = enum.auto()  # things and the background


def written_conversation(seed: int, index: int, target: Target = Target.LAYOUT) -> Conversation:
    """Conversation `index` of the endless set `seed`; story after story, each time in another variant."""
    stories = apart(target)
    rng = np.random.default_rng([seed, index, 3])
    story = stories[index % len(stories)]
    while True:
        found = conversation_of(any_variant(story, rng), rng, target)
        if found is not None and all(keeps_apart(part) for part in found.parts if isinstance(part, str)):
            return found


@functools.cache
def apart(target: Target = Target.LAYOUT) -> tuple[WrittenStory, ...]:
    """The stories that share no run of words with the validation texts, and have a point for `target`."""
    every = (story for story in written_stories() if all(map(keeps_apart, story.texts)))
    return tuple(story for story in every if any(_tells(part, target) for part in story.parts))


def _tells(part: WrittenPart, target: Target) -> bool:
    if isinstance(part, WrittenScene) or not part.wanted:
        return False
    return target is Target.LAYOUT or part.background is not None


def conversation_of(
    story: WrittenStory, rng: np.random.Generator, target: Target = Target.LAYOUT
) -> Conversation | None:
    """The story with boxes for its things; None if they do not fit into the picture this time."""
    parts: list[Part] = []
    scenes: list[Scene | None] = []
    points: list[DrawPoint] = []
    here: tuple[PlacedObject, ...] = ()
    regions: tuple[Box | None, ...] = ()
    for part in story.parts:
        if isinstance(part, WrittenScene):
            here = tuple(place(t.label, (t.x, t.y), int(rng.integers(*_SHOWN_PX))) for t in part.things)
            regions = (None,) * len(here)
            scene = Scene(part.background, here)
            parts.append(Image.fromarray(render(scene)))
            scenes.append(scene)
            continue
        parts.append(part.text)
        scenes.append(None)
        if part.wanted is None:
            continue
        placed = _placed(part.wanted, here, regions, rng)
        if placed is None:
            return None
        here, regions = placed
        if _tells(part, target):
            scene = Scene(part.background or Background.MEADOW, here)
            points.append(DrawPoint(len(parts), scene, (), regions))
    return Conversation(tuple(parts), tuple(scenes), tuple(points))


def _placed(
    wanted: Sequence[WantedPlace],
    before: Sequence[PlacedObject],
    known: Sequence[Box | None],
    rng: np.random.Generator,
) -> tuple[tuple[PlacedObject, ...], tuple[Box | None, ...]] | None:
    """The wanted things and their regions. A thing that was shown and is where it is wanted keeps its box."""
    left = list(zip(before, known, strict=True))
    kept: dict[int, tuple[PlacedObject, Box | None]] = {}
    for i, want in enumerate(wanted):
        same = next((pair for pair in left if pair[0].label == want.label and want.holds(pair[0].box)), None)
        if same is not None:
            left.remove(same)
            kept[i] = same if same[1] is None else (same[0], want.region)
    found = dict(kept)
    for i, want in enumerate(wanted):
        if i not in found:
            item = _put(want, [pair[0] for pair in found.values()], rng)
            if item is None:
                return None
            found[i] = item, want.region
    in_order = [found[i] for i in range(len(wanted))]
    return tuple(item for item, _ in in_order), tuple(region for _, region in in_order)


def _put(want: WantedPlace, others: Sequence[PlacedObject], rng: np.random.Generator) -> PlacedObject | None:
    """The thing somewhere in its region, hiding no other; None after many tries."""
    x1, y1, x2, y2 = want.region
    for attempt in range(_TRIES):
        side = int(rng.integers(*_TOLD_PX)) if attempt < _TRIES // 2 else _TOLD_PX[0]
        item = place(want.label, (float(rng.uniform(x1, x2)), float(rng.uniform(y1, y2))), side)
        if want.holds(item.box) and fits(item, others):
            return item
    return None
