"""The state of a telling at each moment: which things are where, which left, and their names in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgcc_ref.story.placing import newcomer, put_at_place, sample_side
from mgcc_ref.story.wording.phrases import pick
from mgcc_ref.story.world.facts import Cast, Member, ObjectFact, Source, Told
from mgcc_ref.story.world.layout_words import PLACES, Place, is_at, place_of
from mgcc_ref.story.world.scene import Background, PlacedObject, Scene, Size, fits

_ROUNDING = 0.005  # boxes lie on whole pixels; half a pixel is 0.004
TOLD = Told(Source.TEXT, 1)


@dataclass(frozen=True)
class Departed:
    """A thing that left, and where it had been."""

    noun: str
    item: PlacedObject
    gender: str  # as in `World.genders`

    @property
    def place(self) -> Place:
        return place_of(self.item.box)


@dataclass(frozen=True)
class World:
    """`nouns` and `genders` are by the members' keys. Later members are drawn over earlier ones.

    A member whose place and relation are both None is at a position that no text tells.
    """

    cast: Cast
    nouns: dict[int, str]
    genders: dict[int, str]
    departed: tuple[Departed, ...] = ()
    next_key: int = 0

    @property
    def members(self) -> tuple[Member, ...]:
        return self.cast.members

    @property
    def scene(self) -> Scene:
        return Scene(self.cast.background, tuple(m.item for m in self.members))

    def others(self, *gone: int) -> tuple[Member, ...]:
        return tuple(m for m in self.members if m.key not in gone)

    def referable(self) -> list[Member]:
        """Members that are the only one of their label."""
        return [m for m in self.members if self.cast.can_refer(m)]

    def free_cells(self, *, without: Sequence[int] = ()) -> list[Place]:
        """Cells without a member's centre, not counting the members `without`."""
        taken = {place_of(m.item.box) for m in self.others(*without)}
        return [p for p in PLACES if p not in taken]

    def facts(self) -> tuple[ObjectFact, ...]:
        """The told position of each member, in the members' order, without members whose position was not told."""
        index = {m.key: i for i, m in enumerate(self.members)}
        return tuple(
            ObjectFact(
                index[m.key], m.label, self.cast.fact_of(m), tuple(index[k] for k in m.anchors), m.named, m.placed
            )
            for m in self.members
            if m.place is not None or m.relation is not None
        )

    @property
    def holds(self) -> bool:
        """Whether every told position is true and nothing hides another."""
        items = [m.item for m in self.members]
        return all(fits(item, items[:i]) for i, item in enumerate(items)) and all(
            is_at(items[f.index].box, f.fact, tolerance=_ROUNDING) for f in self.facts()
        )

    def with_new(self, member: Member, noun: str, gender: str) -> World:
        """The world with `member` added and in focus."""
        cast = replace(self.cast, members=(*self.members, member), focus=member.key)
        nouns, genders = self.nouns | {member.key: noun}, self.genders | {member.key: gender}
        return replace(self, cast=cast, nouns=nouns, genders=genders, next_key=max(self.next_key, member.key + 1))

    def without(self, *gone: int) -> World:
        """The world without the members of these keys; members that were placed relative to them stay in place."""
        left = tuple(
            Departed(self.nouns[m.key], m.item, self.genders[m.key])
            for m in self.members
            if m.key in gone and self.cast.can_refer(m)
        )
        members = tuple(_on_its_own(m, gone) for m in self.others(*gone))
        focus = None if self.cast.focus in gone else self.cast.focus
        cast = replace(self.cast, members=members, focus=focus)
        return replace(self, cast=cast, departed=(*self.departed, *left)[-3:])

    def changed(self, *moved: Member, focus: int | None) -> World:
        """The world with `moved` in place of their old versions; members placed relative to them stay in place."""
        keys, new = tuple(m.key for m in moved), {m.key: m for m in moved}
        members = tuple(new.get(m.key, _on_its_own(m, keys)) for m in self.members)
        return replace(self, cast=replace(self.cast, members=members, focus=focus))

    def focused(self, key: int | None) -> World:
        return replace(self, cast=replace(self.cast, focus=key))

    def in_setting(self, background: Background) -> World:
        return replace(self, cast=replace(self.cast, background=background))


def _on_its_own(member: Member, gone: Sequence[int]) -> Member:
    """`member` without its anchors if one of them is among `gone`."""
    if not set(member.anchors) & set(gone):
        return member
    return replace(member, place=None, relation=None, anchors=())


def moved_to(
    world: World, member: Member, spot: Place, rng: np.random.Generator, without: Sequence[int] = ()
) -> Member | None:
    """`member` at `spot`, clear of all others except `without`; None if there is no room."""
    return put_at_place(member, spot, world.others(member.key, *without), rng)


def new_member(world: World, label: str, size: Size, rng: np.random.Generator) -> Member:
    """A thing without a position yet."""
    return newcomer(world.next_key, label, sample_side(size, rng), TOLD)


def empty_world(rng: np.random.Generator) -> World:
    """A random background without things."""
    return World(Cast(pick(tuple(Background), rng), TOLD), {}, {})
