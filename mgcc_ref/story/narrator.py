"""The narrator: tells one event after another and keeps the cast consistent with the text.

Every event either returns its sentence and changes the cast, or returns None and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mgcc_ref.story.placing import (
    choose_relation,
    consistent,
    free_label,
    free_place,
    newcomer,
    put_at_place,
    put_by_relation,
    sample_side,
)
from mgcc_ref.story.wording.phrases import (
    ALIASES,
    PLACE_PHRASES,
    RELATION_PHRASES,
    SETTING_PHRASES,
    SIZE_WORDS,
    Kind,
    Split,
    fill,
    indefinite,
    noun_for,
    pick,
    plural,
    specific_setting,
)
from mgcc_ref.story.world.facts import Cast, Member, Source, Told
from mgcc_ref.story.world.layout_words import INVERSE, place_of
from mgcc_ref.story.world.scene import MAX_OBJECTS, Background, PlacedObject, Size, place

Event = Callable[[], str | None]

_PRONOUN_CHANCE = 0.6
_SIZE_WORD_CHANCE = 0.45
_REPEAT_CHANCE = 0.08  # that a new object repeats a label of the scene


class Narrator:
    """Holds the cast and tells events. `caption` is the number of the caption being told, from 1."""

    def __init__(self, rng: np.random.Generator, split: Split) -> None:
        self.rng, self.split = rng, split
        self.caption = 1
        background = pick(tuple(Background), rng)
        self.cast = Cast(background, Told(Source.TEXT, 1))
        self._next_key = 0

    # -- words ---------------------------------------------------------------------------------------------------

    def mention(self, member: Member, *, pronoun: bool = False) -> str:
        """The member's name in the text: "the fox", "my friend", or, if `pronoun` allows and it is in focus, "it"."""
        if pronoun and self.cast.focus == member.key and self.rng.random() < _PRONOUN_CHANCE:
            return "it"
        if member.alias is not None:
            return member.alias
        return f"the {noun_for(member.label, self.rng)}"

    def _fill(self, kind: Kind, **slots: str) -> str:
        return fill(kind, self.split, self.rng, **slots)

    def _where(self, member: Member) -> str:
        if member.place is not None:
            return pick(PLACE_PHRASES[member.place], self.rng)
        assert member.relation is not None
        near_it = len(member.anchors) == 1 and all(m.key != member.key for m in self.cast.members)
        names = [self.mention(self.cast.member(key), pronoun=near_it) for key in member.anchors]
        return pick(RELATION_PHRASES[member.relation], self.rng).format(x=names[0], y=names[-1])

    # -- appearing -----------------------------------------------------------------------------------------------

    def appear_place(self) -> str | None:
        """A new object at one of the nine places."""
        member, words = self._new_member()
        if member is None:
            return None
        spot = free_place(self._items(), self.rng)
        placed = put_at_place(member, spot, self.cast.members, self.rng)
        return self._commit_new(placed, Kind.APPEAR_PLACE, words)

    def appear_relation(self) -> str | None:
        """A new object beside, above, below or between others."""
        member, words = self._new_member()
        anchors = [] if member is None else [m for m in self._referable() if m.label != member.label]
        if member is None or not anchors:
            return None
        relation, chosen = choose_relation(anchors, self.rng)
        placed = put_by_relation(member, relation, chosen, self.cast.members, self.rng)
        return self._commit_new(placed, Kind.APPEAR_RELATION, words)

    def stand_by_new(self) -> str | None:
        """A member stands by a new object ("my friend sits under a tree"), which is placed beside it."""
        member, words = self._new_member()
        known = [] if member is None else [m for m in self._referable() if m.label != member.label]
        if member is None or not known or words.startswith("another"):
            return None
        stander = pick(known, self.rng)
        relation = pick(tuple(INVERSE), self.rng)
        placed = put_by_relation(member, INVERSE[relation], [stander], self.cast.members, self.rng)
        if placed is None:
            return None
        where = pick(RELATION_PHRASES[relation], self.rng).format(x=words)
        text = self._fill(Kind.STAND_BY, the=self.mention(stander, pronoun=True), where=where)
        self._next_key += 1
        self.cast = replace(self.cast, members=(*self.cast.members, placed), focus=stander.key)
        return text

    def appear_two(self) -> str | None:
        """Two objects of one label at two places."""
        if len(self.cast.members) > MAX_OBJECTS - 2:
            return None
        label, told = free_label(self.cast, self.rng), Told(Source.TEXT, self.caption)
        size, size_word = self._draw_size()
        pair: list[Member] = []
        for offset in range(2):
            member = newcomer(self._next_key + offset, label, sample_side(size, self.rng), told)
            others = (*self.cast.members, *pair)
            placed = put_at_place(member, free_place([m.item for m in others], self.rng), others, self.rng)
            if placed is None:
                return None
            pair.append(placed)
        noun = f"{size_word} {plural(noun_for(label, self.rng))}".strip()
        p1, p2 = self._where(pair[0]), self._where(pair[1])
        self._next_key += 2
        self.cast = replace(self.cast, members=(*self.cast.members, *pair), focus=None)
        return self._fill(Kind.COUNT, plural=noun, p1=p1, p2=p2)

    def appear_in_image(self) -> str | None:
        """An object that the text calls "my friend"; only the picture shows its kind and position."""
        aliases = [a for a in ALIASES if all(m.alias != a for m in self.cast.members)]
        if len(self.cast.members) >= MAX_OBJECTS or len(aliases) < len(ALIASES) - 1:
            return None
        told = Told(Source.IMAGE, self.caption)
        size = pick(tuple(Size), self.rng)
        side_px, alias = sample_side(size, self.rng), pick(aliases, self.rng)
        member = newcomer(self._next_key, free_label(self.cast, self.rng), side_px, told, alias)
        spot = free_place(self._items(), self.rng)
        placed = put_at_place(member, spot, self.cast.members, self.rng)
        if placed is None or placed.alias is None:
            return None
        kind = Kind.ALIAS_JOINS if self.cast.members else Kind.ALIAS_ALONE
        self._next_key += 1
        self.cast = replace(self.cast, members=(*self.cast.members, placed), focus=placed.key)
        return self._fill(kind, alias=placed.alias)

    # -- changing ------------------------------------------------------------------------------------------------

    def move_place(self) -> str | None:
        """An object goes to another of the nine places."""
        member = self._movable()
        if member is None:
            return None
        others = self._others(member)
        spot = free_place([m.item for m in others], self.rng, besides=place_of(member.item.box))
        moved = put_at_place(member, spot, others, self.rng)
        return self._commit_move(moved, Kind.MOVE_PLACE)

    def move_relation(self) -> str | None:
        """An object goes to stand beside, above, below or between others."""
        member = self._movable()
        if member is None:
            return None
        others = self._others(member)
        anchors = [m for m in others if self.cast.can_refer(m)]
        if not anchors:
            return None
        relation, chosen = choose_relation(anchors, self.rng)
        moved = put_by_relation(member, relation, chosen, others, self.rng)
        if moved is None or (moved.relation, moved.anchors) == (member.relation, member.anchors):
            return None
        return self._commit_move(moved, Kind.MOVE_RELATION)

    def leave(self) -> str | None:
        """An object leaves, but never the last one."""
        member = self._movable()
        if member is None or len(self.cast.members) < 2:
            return None
        text = self._fill(Kind.LEAVE, the=self.mention(member, pronoun=True))
        self.cast = replace(self.cast, members=self._others(member), focus=None)
        return text

    def leave_both(self) -> str | None:
        """Two objects of one label go away together."""
        by_label: dict[str, list[Member]] = {}
        for member in self.cast.members:
            if member.alias is None and not self.cast.is_anchor(member.key):
                by_label.setdefault(member.label, []).append(member)
        pairs = [pair for pair in by_label.values() if len(pair) == 2]
        if not pairs or len(self.cast.members) < 3:
            return None
        pair = pick(pairs, self.rng)
        rest = tuple(m for m in self.cast.members if m.label != pair[0].label)
        self.cast = replace(self.cast, members=rest, focus=None)
        return self._fill(Kind.LEAVE_BOTH, plural=plural(noun_for(pair[0].label, self.rng)))

    def swap(self) -> str | None:
        """Two objects whose places were told exchange them."""
        free = [m for m in self._referable() if m.place is not None and not self.cast.is_anchor(m.key)]
        if len(free) < 2:
            return None
        first, second = (free[i] for i in self.rng.permutation(len(free))[:2])
        rest = [m for m in self.cast.members if m.key not in (first.key, second.key)]
        assert first.place is not None
        assert second.place is not None
        first_moved = put_at_place(first, second.place, rest, self.rng)
        if first_moved is None:
            return None
        second_moved = put_at_place(second, first.place, [*rest, first_moved], self.rng)
        if second_moved is None:
            return None
        text = self._fill(Kind.SWAP, the=self.mention(first), other=self.mention(second))
        told = Told(Source.TEXT, self.caption)
        moved = {m.key: replace(m, placed=told) for m in (first_moved, second_moved)}
        self.cast = replace(self.cast, members=tuple(moved.get(m.key, m) for m in self.cast.members), focus=None)
        return text

    def resize(self) -> str | None:
        """An object grows or shrinks where it stands."""
        member = pick(self._referable() or [None], self.rng)
        if member is None:
            return None
        old = member.item.size
        new = pick([s for s in Size if s is not old], self.rng)
        item = place(member.label, member.item.centre, sample_side(new, self.rng))
        changed = self._with(replace(member, item=item))
        if not consistent(changed):
            return None
        order = list(Size)
        kind = Kind.GROW if order.index(new) > order.index(old) else Kind.SHRINK
        text = self._fill(kind, the=self.mention(member, pronoun=True), size=pick(SIZE_WORDS[new], self.rng))
        self.cast = replace(changed, focus=member.key)
        return text

    def travel(self) -> str | None:
        """The background changes, told in words."""
        background = self._change_background(Source.TEXT)
        if self.rng.random() < 0.4:
            return specific_setting(background, self.split, self.rng)
        return self._fill(Kind.TRAVEL, setting=pick(SETTING_PHRASES[background], self.rng))

    def travel_in_image(self) -> str | None:
        """The background changes; only the picture shows the new one."""
        self._change_background(Source.IMAGE)
        return self._fill(Kind.SETTING_SHOWN)

    def show_background(self) -> None:
        """Mark the background as shown by the first picture, not told in words."""
        self.cast = replace(self.cast, background_told=Told(Source.IMAGE, self.caption))

    def opening(self) -> str:
        """A sentence that tells the first background."""
        return self._fill(Kind.OPENING, setting=pick(SETTING_PHRASES[self.cast.background], self.rng))

    def distract(self) -> str:
        """A sentence that changes nothing."""
        absent = indefinite(noun_for(free_label(self.cast, self.rng), self.rng))
        self.cast = replace(self.cast, focus=None)
        return self._fill(Kind.DISTRACTOR, absent=absent)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _items(self) -> list[PlacedObject]:
        return [m.item for m in self.cast.members]

    def _others(self, member: Member) -> tuple[Member, ...]:
        return tuple(m for m in self.cast.members if m.key != member.key)

    def _with(self, member: Member) -> Cast:
        return replace(self.cast, members=tuple(member if m.key == member.key else m for m in self.cast.members))

    def _referable(self) -> list[Member]:
        return [m for m in self.cast.members if self.cast.can_refer(m)]

    def _movable(self) -> Member | None:
        """A member that can be named and is no anchor of another member."""
        free = [m for m in self._referable() if not self.cast.is_anchor(m.key)]
        return pick(free, self.rng) if free else None

    def _draw_size(self) -> tuple[Size, str]:
        """A size and its word; medium has none."""
        if self.rng.random() >= _SIZE_WORD_CHANCE:
            return Size.MEDIUM, ""
        size = pick((Size.SMALL, Size.SMALL, Size.MEDIUM, Size.LARGE, Size.LARGE), self.rng)
        return size, pick(SIZE_WORDS[size], self.rng)

    def _new_member(self) -> tuple[Member | None, str]:
        """A member without a position yet, and its words in the text: "a large fox", "another fox"."""
        if len(self.cast.members) >= MAX_OBJECTS:
            return None, ""
        size, size_word = self._draw_size()
        doubles = [m for m in self._referable() if m.alias is None and not self.cast.is_anchor(m.key)]
        again = bool(doubles) and self.rng.random() < _REPEAT_CHANCE
        label = pick(doubles, self.rng).label if again else free_label(self.cast, self.rng)
        noun = f"{size_word} {noun_for(label, self.rng)}".strip()
        told = Told(Source.TEXT, self.caption)
        words = f"another {noun}" if again else indefinite(noun)
        return newcomer(self._next_key, label, sample_side(size, self.rng), told), words

    def _commit_new(self, member: Member | None, kind: Kind, words: str) -> str | None:
        if member is None:
            return None
        text = self._fill(kind, a=words, where=self._where(member))
        self._next_key += 1
        self.cast = replace(self.cast, members=(*self.cast.members, member), focus=member.key)
        return text

    def _commit_move(self, member: Member | None, kind: Kind) -> str | None:
        if member is None:
            return None
        text = self._fill(kind, the=self.mention(member, pronoun=True), where=self._where(member))
        told = Told(Source.TEXT, self.caption)
        self.cast = replace(self._with(replace(member, placed=told)), focus=member.key)
        return text

    def _change_background(self, source: Source) -> Background:
        background = pick([b for b in Background if b is not self.cast.background], self.rng)
        told = Told(source, self.caption)
        self.cast = replace(self.cast, background=background, background_told=told, focus=None)
        return background
