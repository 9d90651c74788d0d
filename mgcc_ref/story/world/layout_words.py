"""Positions of objects in words that can be checked: nine places of a 3x3 grid and seven relations.

Coordinates are in [0, 1], x to the right and y down; boxes are xyxy.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

from mgcc_ref.story.world.scene import Box


class Place(enum.StrEnum):
    """Cells of the 3x3 grid, in reading order."""

    TOP_LEFT = "top-left"
    TOP = "top"
    TOP_RIGHT = "top-right"
    LEFT = "left"
    CENTRE = "centre"
    RIGHT = "right"
    BOTTOM_LEFT = "bottom-left"
    BOTTOM = "bottom"
    BOTTOM_RIGHT = "bottom-right"


class Relation(enum.StrEnum):
    """An object's position relative to its anchor; BETWEEN has two anchors, all others one."""

    LEFT_OF = "left of"
    RIGHT_OF = "right of"
    ABOVE = "above"
    BELOW = "below"
    NEXT_TO = "next to"
    UNDER = "under"
    BETWEEN = "between"


#: A's relation to B -> B's relation to A. "Under" is a narrow "below".
INVERSE: dict[Relation, Relation] = {
    Relation.LEFT_OF: Relation.RIGHT_OF,
    Relation.RIGHT_OF: Relation.LEFT_OF,
    Relation.ABOVE: Relation.BELOW,
    Relation.BELOW: Relation.ABOVE,
    Relation.UNDER: Relation.ABOVE,
    Relation.NEXT_TO: Relation.NEXT_TO,
}

PLACES: tuple[Place, ...] = tuple(Place)
RELATIONS: tuple[Relation, ...] = tuple(Relation)

_THIRD = 1 / 3
#: Region of each place: xyxy of its grid cell.
REGIONS: dict[Place, Box] = {
    place: (column * _THIRD, row * _THIRD, (column + 1) * _THIRD, (row + 1) * _THIRD)
    for place, (row, column) in zip(PLACES, ((r, c) for r in range(3) for c in range(3)), strict=True)
}
INSET = 0.03  # centres keep this distance from the cell's inner edges, so that the cell is clear to the eye
PLACE_TOLERANCE = 0.04  # a drawn centre may lie this far outside its cell
RELATION_TOLERANCE = 0.06  # and a drawn relation this far outside its bounds

#: A one-anchor relation bounds two lengths: the gap along its axis and the sideways shift.
_GAP = dict.fromkeys(RELATIONS, 0.16) | {Relation.UNDER: 0.08}
_SHIFT = dict.fromkeys(RELATIONS, 0.1) | {Relation.UNDER: 0.06}
_BETWEEN_ALONG = (0.32, 0.68)  # part of the way from the first anchor's centre to the second's
_BETWEEN_SHIFT = 0.08


@dataclass(frozen=True)
class PlaceFact:
    """The object's centre is in the cell of `place`."""

    place: Place


@dataclass(frozen=True)
class RelationFact:
    """The object is in `relation` to the boxes `anchors` (two for BETWEEN, else one)."""

    relation: Relation
    anchors: tuple[Box, ...]

    def __post_init__(self) -> None:
        expected = 2 if self.relation is Relation.BETWEEN else 1
        if len(self.anchors) != expected:
            raise ValueError(
                f"relation {self.relation.value!r} came with {len(self.anchors)} anchor boxes, expected {expected}; "
                "give one box for each thing that the relation names"
            )


Fact = PlaceFact | RelationFact


def place_of(box: Box) -> Place:
    """The place whose cell holds the centre of `box`."""
    column = min(2, max(0, int((box[0] + box[2]) / 2 * 3)))
    row = min(2, max(0, int((box[1] + box[3]) / 2 * 3)))
    return PLACES[3 * row + column]


def is_at(object_box: Box, fact: Fact, *, tolerance: float | None = None) -> bool:
    """Whether `fact` holds for the object's box.

    A place requires the centre in its cell; a relation requires the box on the named side of the anchor, clear of it
    and near. `tolerance` (a share of the picture's side) loosens all bounds; by default PLACE_TOLERANCE or
    RELATION_TOLERANCE.
    """
    if isinstance(fact, PlaceFact):
        slack = PLACE_TOLERANCE if tolerance is None else tolerance
        x, y = (object_box[0] + object_box[2]) / 2, (object_box[1] + object_box[3]) / 2
        x1, y1, x2, y2 = REGIONS[fact.place]
        return x1 - slack <= x <= x2 + slack and y1 - slack <= y <= y2 + slack
    slack = RELATION_TOLERANCE if tolerance is None else tolerance
    if fact.relation is Relation.BETWEEN:
        return _is_between(object_box, fact.anchors[0], fact.anchors[1], slack)
    return any(_is_beside(object_box, fact.anchors[0], side, fact.relation, slack) for side in _SIDES[fact.relation])


class _Side(enum.Enum):
    LEFT = enum.auto()
    RIGHT = enum.auto()
    UP = enum.auto()
    DOWN = enum.auto()


_SIDES: dict[Relation, tuple[_Side, ...]] = {
    Relation.LEFT_OF: (_Side.LEFT,),
    Relation.RIGHT_OF: (_Side.RIGHT,),
    Relation.ABOVE: (_Side.UP,),
    Relation.BELOW: (_Side.DOWN,),
    Relation.UNDER: (_Side.DOWN,),
    Relation.NEXT_TO: (_Side.LEFT, _Side.RIGHT),
}


def _is_beside(box: Box, anchor: Box, side: _Side, relation: Relation, slack: float) -> bool:
    if side in (_Side.LEFT, _Side.RIGHT):
        gap = anchor[0] - box[2] if side is _Side.LEFT else box[0] - anchor[2]
        shift = (box[1] + box[3] - anchor[1] - anchor[3]) / 2
    else:
        gap = anchor[1] - box[3] if side is _Side.UP else box[1] - anchor[3]
        shift = (box[0] + box[2] - anchor[0] - anchor[2]) / 2
    return -slack <= gap <= _GAP[relation] + slack and abs(shift) <= _SHIFT[relation] + slack


def _is_between(box: Box, first: Box, second: Box, slack: float) -> bool:
    ax, ay = (first[0] + first[2]) / 2, (first[1] + first[3]) / 2
    dx, dy = (second[0] + second[2]) / 2 - ax, (second[1] + second[3]) / 2 - ay
    length = math.hypot(dx, dy)
    if length < 1e-6:
        return False
    px, py = (box[0] + box[2]) / 2 - ax, (box[1] + box[3]) / 2 - ay
    along = (px * dx + py * dy) / length
    shift = abs(px * dy - py * dx) / length
    low, high = _BETWEEN_ALONG[0] * length - slack, _BETWEEN_ALONG[1] * length + slack
    return low <= along <= high and shift <= _BETWEEN_SHIFT + slack


def sample_centre(fact: Fact, size: tuple[float, float], rng: np.random.Generator) -> tuple[float, float]:
    """A random centre for a box of `size` (width, height) that `fact` allows.

    The caller checks the result: a relation to an anchor at the picture's edge may leave no room, and `scene.place`
    then moves the box inwards, where `fact` may not hold.
    """
    width, height = size
    u, v = float(rng.random()), float(rng.random())
    if isinstance(fact, PlaceFact):
        x1, y1, x2, y2 = REGIONS[fact.place]
        return _inside(x1, x2, width, u), _inside(y1, y2, height, v)
    anchor = fact.anchors[0]
    ax, ay = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    if fact.relation is Relation.BETWEEN:
        second = fact.anchors[1]
        dx, dy = (second[0] + second[2]) / 2 - ax, (second[1] + second[3]) / 2 - ay
        length = max(1e-6, math.hypot(dx, dy))
        t = _BETWEEN_ALONG[0] + (_BETWEEN_ALONG[1] - _BETWEEN_ALONG[0]) * u
        shift = _BETWEEN_SHIFT * (2 * v - 1)
        return ax + t * dx - shift * dy / length, ay + t * dy + shift * dx / length
    sides = _SIDES[fact.relation]
    side = sides[int(rng.integers(len(sides)))] if len(sides) > 1 else sides[0]
    gap, shift = _GAP[fact.relation] * u, _SHIFT[fact.relation] * (2 * v - 1)
    if side is _Side.LEFT:
        return anchor[0] - gap - width / 2, ay + shift
    if side is _Side.RIGHT:
        return anchor[2] + gap + width / 2, ay + shift
    if side is _Side.UP:
        return ax + shift, anchor[1] - gap - height / 2
    return ax + shift, anchor[3] + gap + height / 2


def _inside(low: float, high: float, extent: float, u: float) -> float:
    """A coordinate in the cell, off its inner edges, that keeps a box of `extent` inside the picture."""
    start = max(low + INSET if low > 0 else 0.0, extent / 2)
    end = min(high - INSET if high < 1 else 1.0, 1 - extent / 2)
    return start + (end - start) * u
