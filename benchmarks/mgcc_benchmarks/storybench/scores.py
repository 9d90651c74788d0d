"""One item's scores: the reading of the picture against the scene that the item describes.

Each score counts one kind of fault and no other. A missing object lowers recall; an object that is in no part of the
scene lowers precision. A place is judged only for objects that were found, and a relation only if its anchors were,
too. `whole_scene` is all of it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from mgcc_benchmarks.bootstrap import NOTHING, Tally
from mgcc_benchmarks.storybench.reader import Reading, ReadObject
from mgcc_ref.story.bench import BenchItem, labels_named_in
from mgcc_ref.story.free_english import FreeItem
from mgcc_ref.story.world.layout_words import is_at
from mgcc_ref.story.world.scene import Box, PlacedObject

SCENE_SCORES = ("object_recall", "object_precision", "position_accuracy", "background_accuracy", "whole_scene")
PICTURE_SCORES = ("clip_similarity", "template_top1", "sprite_psnr_db")
TEXT_SCORES = ("text_names_right", "text_names_any")
SCORES = (*SCENE_SCORES, *PICTURE_SCORES, *TEXT_SCORES)

_NOWHERE: Box = (-1.0, -1.0, -1.0, -1.0)


@dataclass(frozen=True)
class SceneTally:
    """Counts of one picture."""

    expected: int
    found: int
    extra: int  # read, but in no part of the true scene
    to_place: int  # found objects whose place the item states
    placed: int
    unplaced: int  # stated places that cannot hold, since the object or its anchor is missing
    background: Tally


def match_objects(read: Sequence[ReadObject], wanted: Sequence[PlacedObject]) -> dict[int, int]:
    """Index into `read` for each wanted object that has one of its label; of several pairings, the nearest."""
    if not read or not wanted:
        return {}
    far = 1e3
    cost = np.full((len(wanted), len(read)), far)
    for i, item in enumerate(wanted):
        for j, seen in enumerate(read):
            if item.label == seen.label:
                cost[i, j] = float(np.abs(np.subtract(item.box, seen.box)).sum())
    rows, columns = linear_sum_assignment(cost)
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if cost[i, j] < far}


def tally_scene(item: BenchItem, reading: Reading) -> SceneTally:
    """Compare a picture's reading with what the item states, as defined in `mgcc_ref.story.bench`."""
    expected_first = sorted(range(len(item.target.objects)), key=lambda i: i not in {e.index for e in item.expected})
    order = [item.target.objects[i] for i in expected_first]
    # expected objects are matched first; the rest may be objects that the shown parts do not mention
    told = order[: len(item.expected)]
    pairs = match_objects(reading.objects, told)
    rest = [seen for j, seen in enumerate(reading.objects) if j not in pairs.values()]
    untold = match_objects(rest, order[len(item.expected) :])
    found = {expected_first[i]: reading.objects[j] for i, j in pairs.items()}
    boxes = [found[i].box if i in found else _NOWHERE for i in range(len(item.target.objects))]
    facts = [e.fact for e in item.expected if e.fact is not None]
    judged = [f for f in facts if f.index in found and all(anchor in found for anchor in f.anchors)]
    right_background = float(reading.background is item.background)
    return SceneTally(
        expected=len(item.expected),
        found=len(found),
        extra=len(rest) - len(untold),
        to_place=len(judged),
        placed=sum(is_at(boxes[f.index], f.with_anchor_boxes(boxes)) for f in judged),
        unplaced=len(facts) - len(judged),
        background=NOTHING if item.background is None else Tally(right_background, 1.0),
    )


def score_scene(item: BenchItem, reading: Reading) -> dict[str, Tally]:
    """SCENE_SCORES of one picture."""
    t = tally_scene(item, reading)
    whole = (
        t.found == t.expected
        and not t.extra
        and t.placed == t.to_place
        and not t.unplaced
        and t.background.right == t.background.counted
    )
    return {
        "object_recall": Tally(t.found, t.expected),
        "object_precision": Tally(t.found, t.found + t.extra),
        "position_accuracy": Tally(t.placed, t.to_place),
        "background_accuracy": t.background,
        "whole_scene": Tally(float(whole), 1.0) if item.tells_something else NOTHING,
    }


def score_free(item: FreeItem, reading: Reading) -> dict[str, Tally]:
    """SCENE_SCORES of a free item's picture: any object of a wanted label may match; all others are extra."""
    seen = [[read.box for read in reading.objects if read.label == wanted.label] for wanted in item.wanted]
    found = sum(bool(boxes) for boxes in seen)
    placed = sum(any(wanted.holds(box) for box in boxes) for wanted, boxes in zip(item.wanted, seen, strict=True))
    strange = sum(read.label not in {w.label for w in item.wanted} for read in reading.objects)
    background = float(reading.background is item.background)
    whole = placed == len(item.wanted) and not strange and (background or item.background is None)
    return {
        "object_recall": Tally(found, len(item.wanted)),
        "object_precision": Tally(found, found + strange),
        "position_accuracy": Tally(placed, found),
        "background_accuracy": NOTHING if item.background is None else Tally(background, 1.0),
        "whole_scene": Tally(float(whole), 1.0),
    }


def score_text(item: BenchItem, text: str) -> dict[str, Tally]:
    """TEXT_SCORES of a continuation: share of the objects it names that the story has, and whether it names any."""
    named = labels_named_in(text)
    return {
        "text_names_right": Tally(sum(label in item.story_labels for label in named), len(named)),
        "text_names_any": Tally(float(bool(named)), 1.0),
    }
