"""The facts that a story or dialogue tells about each object of a scene, and the cast that they derive from."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from mgcc_ref.story.world.layout_words import Fact, Place, PlaceFact, Relation, RelationFact
from mgcc_ref.story.world.scene import Background, Box, PlacedObject


class Source(enum.StrEnum):
    """The kind of part that tells a fact."""

    TEXT = "text"
    IMAGE = "image"


@dataclass(frozen=True)
class Told:
    """The source of a fact: text or only an image, and the caption or round (from 1)."""

    source: Source
    at: int


@dataclass(frozen=True)
class ObjectFact:
    """The context's facts about `scene.objects[index]`.

    `fact` holds the boxes of its anchors in this scene. `anchors` are their indices, so that a score can use the
    boxes in the drawn picture instead (`with_anchor_boxes`).
    """

    index: int
    label: str
    fact: Fact
    anchors: tuple[int, ...]
    named: Told
    placed: Told

    def with_anchor_boxes(self, boxes: Sequence[Box]) -> Fact:
        """The same fact against other boxes of the scene's objects, in the scene's order."""
        if isinstance(self.fact, PlaceFact):
            return self.fact
        return RelationFact(self.fact.relation, tuple(boxes[i] for i in self.anchors))


@dataclass(frozen=True)
class Member:
    """An object of a growing scene. Its position is `place`, or `relation` to the members `anchors` (keys)."""

    key: int
    item: PlacedObject
    place: Place | None
    relation: Relation | None
    anchors: tuple[int, ...]
    alias: str | None
    named: Told
    placed: Told

    @property
    def label(self) -> str:
        return self.item.label


@dataclass(frozen=True)
class Cast:
    """The state of a scene at one moment; `focus` is the key of the member that "it" means."""

    background: Background
    background_told: Told
    members: tuple[Member, ...] = ()
    focus: int | None = None

    def member(self, key: int) -> Member:
        return next(m for m in self.members if m.key == key)

    def is_anchor(self, key: int) -> bool:
        """Whether the position of another member is relative to this one."""
        return any(key in m.anchors for m in self.members)

    def can_refer(self, member: Member) -> bool:
        """Whether the text can name this member without ambiguity."""
        return member.alias is not None or sum(m.label == member.label for m in self.members) == 1

    def fact_of(self, member: Member) -> Fact:
        if member.place is not None:
            return PlaceFact(member.place)
        assert member.relation is not None
        return RelationFact(member.relation, tuple(self.member(key).item.box for key in member.anchors))

    def object_facts(self) -> tuple[ObjectFact, ...]:
        """One fact for each member, in the members' order."""
        index_of = {m.key: i for i, m in enumerate(self.members)}
        return tuple(
            ObjectFact(i, m.label, self.fact_of(m), tuple(index_of[k] for k in m.anchors), m.named, m.placed)
            for i, m in enumerate(self.members)
        )
