"""Placing objects in a scene so that the text's facts about them hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mgcc_ref.story.wording.phrases import pick
from mgcc_ref.story.world.facts import Cast, Member, Told
from mgcc_ref.story.world.layout_words import (
    PLACES,
    Fact,
    Place,
    PlaceFact,
    Relation,
    RelationFact,
    is_at,
    place_of,
    sample_centre,
)
from mgcc_ref.story.world.scene import IMAGE_PX, SIZE_RANGES_PX, PlacedObject, Size, fits, place
from mgcc_ref.story.world.sprites import LABELS, sprite

_TRIES = 8
_BETWEEN_CHANCE = 0.35  # high, since most pairs leave no room between them
_ROUNDING = 0.005  # boxes lie on whole pixels; half a pixel is 0.004


def sample_side(size: Size, rng: np.random.Generator) -> int:
    """Longer side in pixels for a size word."""
    low, high = SIZE_RANGES_PX[size]
    return int(rng.integers(low, high + 1))


def put(
    label: str, side_px: int, fact: Fact, others: Sequence[PlacedObject], rng: np.random.Generator
) -> PlacedObject | None:
    """`label` at a position where `fact` holds and nothing is hidden, or None if no room was found."""
    height, width = sprite(label, side_px).shape[:2]
    for _ in range(_TRIES):
        item = place(label, sample_centre(fact, (width / IMAGE_PX, height / IMAGE_PX), rng), side_px)
        if is_at(item.box, fact, tolerance=_ROUNDING) and fits(item, others):
            return item
    return None


def consistent(cast: Cast) -> bool:
    """Whether every member stands where the text says and nothing hides another."""
    items = [m.item for m in cast.members]
    return all(fits(item, items[:i]) for i, item in enumerate(items)) and all(
        is_at(m.item.box, cast.fact_of(m), tolerance=_ROUNDING) for m in cast.members
    )


def free_place(others: Sequence[PlacedObject], rng: np.random.Generator, *, besides: Place | None = None) -> Place:
    """A cell of the grid without an object's centre, and not `besides`."""
    taken = {place_of(item.box) for item in others}
    free = [p for p in PLACES if p not in taken and p is not besides]
    return pick(free, rng)


def free_label(cast: Cast, rng: np.random.Generator) -> str:
    """A label that no member has."""
    taken = {m.label for m in cast.members}
    while True:
        label = pick(LABELS, rng)
        if label not in taken:
            return label


def choose_relation(candidates: Sequence[Member], rng: np.random.Generator) -> tuple[Relation, list[Member]]:
    """A relation, and its one or two anchors from `candidates` (at least one)."""
    one_anchor = [r for r in Relation if r is not Relation.BETWEEN]
    between = len(candidates) > 1 and rng.random() < _BETWEEN_CHANCE
    relation = Relation.BETWEEN if between else pick(one_anchor, rng)
    order = rng.permutation(len(candidates))
    return relation, [candidates[i] for i in order[: 2 if between else 1]]


def put_at_place(member: Member, spot: Place, others: Sequence[Member], rng: np.random.Generator) -> Member | None:
    """`member` moved to `spot`, or None when there is no room."""
    item = put(member.label, member.item.long_side_px, PlaceFact(spot), [m.item for m in others], rng)
    return None if item is None else replace(member, item=item, place=spot, relation=None, anchors=())


def put_by_relation(
    member: Member, relation: Relation, anchors: Sequence[Member], others: Sequence[Member], rng: np.random.Generator
) -> Member | None:
    """`member` moved to stand in `relation` to `anchors`, or None when there is no room."""
    fact = RelationFact(relation, tuple(anchor.item.box for anchor in anchors))
    item = put(member.label, member.item.long_side_px, fact, [m.item for m in others], rng)
    if item is None:
        return None
    return replace(member, item=item, place=None, relation=relation, anchors=tuple(a.key for a in anchors))


def newcomer(key: int, label: str, side_px: int, told: Told, alias: str | None = None) -> Member:
    """A member without a position yet (its box is at the picture's centre)."""
    return Member(key, place(label, (0.5, 0.5), side_px), Place.CENTRE, None, (), alias, told, told)
