"""A second state machine for tellings: from the clauses' slots alone to what must be in the picture, and where."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mgcc_ref.story.telling.teller import Said
from mgcc_ref.story.telling.words import data, label_of_form, noun_pattern
from mgcc_ref.story.world.layout_words import PLACES, Place


@dataclass
class Thing:
    label: str
    cell: Place | None  # None: told by a relation, or not at all


def labels_in(words: str) -> list[str]:
    return [label_of_form()[found.lower()] for found in noun_pattern().findall(words)]


@functools.cache
def cell_of_phrase(table: str) -> Mapping[str, Place]:
    return {phrase: Place(cell) for cell, phrases in data("places")[table].items() for phrase in phrases}


class Replay:
    def __init__(self) -> None:
        self.things: list[Thing] = []
        self.gone: list[Thing] = []

    def cell(self, where: str) -> Place | None:
        """The cell that the words name: themselves, or by who was there."""
        found = cell_of_phrase("at").get(where)
        if found is not None or not {"was", "place", "spot", "used", "had", "been"} & set(where.split()):
            return found
        label = labels_in(where)[-1]
        return next(t.cell for t in reversed(self.gone) if t.label == label)

    def one(self, words: str) -> Thing:
        label = labels_in(words)[-1]
        return next(t for t in self.things if t.label == label)

    def add(self, words: str, cell: Place | None) -> None:
        self.things.append(Thing(labels_in(words)[-1], cell))

    def drop(self, thing: Thing) -> None:
        self.things = [t for t in self.things if t is not thing]
        self.gone.append(thing)

    def say(self, said: Said) -> None:
        kind, slots = said.kind.split(".")[0], said.slots
        handler = getattr(self, f"_{kind}", None)
        if handler is not None:
            handler(slots)
        elif kind == "move_straight":
            raise AssertionError(said)

    # -- one method a kind of clause; what has none changes nothing --------------------------------------------------

    def _appear(self, s: Mapping[str, str]) -> None:
        self.add(s["a"], self.cell(s["where"]))

    _item = _appear

    def _side(self, s: Mapping[str, str]) -> None:
        self.add(s["a"], None)

    _has_by = _side

    def _between_new(self, s: Mapping[str, str]) -> None:
        self.add(s["x"], self.cell(s["p1"]))
        self.add(s["y"], self.cell(s["p2"]))
        self.add(s["a"], None)

    def _pair(self, s: Mapping[str, str]) -> None:
        self.add(s["plural"], self.cell(s["p1"]))
        self.add(s["plural"], self.cell(s["p2"]))

    def _pair_loose(self, s: Mapping[str, str]) -> None:
        self.add(s["plural"], None)
        self.add(s["plural"], None)

    def _again(self, s: Mapping[str, str]) -> None:
        self.add(s["bare_noun"], self.cell(s["where"]))

    def _named(self, s: Mapping[str, str]) -> None:
        self.things += [Thing(label, None) for label in labels_in(s["things"])]

    def _told(self, s: Mapping[str, str]) -> None:
        self.one(s["bare_the"]).cell = self.cell(s["where"])

    _denied = _move = _told

    def _leave(self, s: Mapping[str, str]) -> None:
        self.drop(self.one(s["bare_the"]))

    def _leave_two(self, s: Mapping[str, str]) -> None:
        self.drop(self.one(s["bare_the"]))
        self.drop(self.one(s["bare_other"]))

    def _leave_all_but(self, s: Mapping[str, str]) -> None:
        stays = self.one(s["bare_the"])
        for thing in [t for t in self.things if t is not stays]:
            self.drop(thing)

    def _replace(self, s: Mapping[str, str]) -> None:
        old = self.one(s["bare_the"])
        self.drop(old)
        self.add(s["a"], old.cell)

    def _return_same(self, s: Mapping[str, str]) -> None:
        label = labels_in(s["bare_old"])[-1]
        self.add(s["bare_old"], next(t.cell for t in reversed(self.gone) if t.label == label))

    def _return_new(self, s: Mapping[str, str]) -> None:
        self.add(s["bare_old"], self.cell(s["where"]))

    def _follow(self, s: Mapping[str, str]) -> None:
        self.one(s["bare_the"]).cell = self.cell(f"{s['old']} was")

    def _takes_over(self, s: Mapping[str, str]) -> None:
        first = self.one(s["bare_the"])
        self.drop(first)
        self.one(s["bare_other"]).cell = first.cell

    def _swap(self, s: Mapping[str, str]) -> None:
        first, second = self.one(s["bare_the"]), self.one(s["bare_other"])
        first.cell, second.cell = second.cell, first.cell

    def _swap_two(self, s: Mapping[str, str]) -> None:
        first, second = self.things
        first.cell, second.cell = second.cell, first.cell

    def _fix_place(self, s: Mapping[str, str]) -> None:
        self.things[-1].cell = self.cell(s["where"])

    def _fix_noun(self, s: Mapping[str, str]) -> None:
        wrong = labels_in(s["wrong"])[-1]
        assert self.things[-1].label == wrong
        self.things[-1].label = labels_in(s["a"])[-1]

    def _fix_mixed(self, s: Mapping[str, str]) -> None:
        self.one(s["bare_the"]).cell = self.cell(s["p1"])
        self.one(s["bare_other"]).cell = self.cell(s["p2"])

    def _one(self, s: Mapping[str, str]) -> Thing:
        label = labels_in(s["plural"])[-1]
        cell = cell_of_phrase("one")[s["one_bare"]]
        return next(t for t in self.things if t.label == label and t.cell is cell)

    def _one_leaves(self, s: Mapping[str, str]) -> None:
        thing = self._one(s)
        self.things = [t for t in self.things if t is not thing]

    def _one_moves(self, s: Mapping[str, str]) -> None:
        self._one(s).cell = self.cell(s["where"])


def replayed(said: Sequence[Said]) -> list[Thing]:
    """What is there after all of the clauses."""
    replay = Replay()
    for clause in said:
        if clause.kind.startswith("move_straight."):
            thing = replay.one(clause.slots["bare_the"])
            if thing.cell is not None:
                row, column = divmod(PLACES.index(thing.cell), 3)
                ways = {"up": (0, column), "down": (2, column), "left": (row, 0), "right": (row, 2)}
                row, column = ways[clause.kind.split(".")[1]]
                thing.cell = PLACES[3 * row + column]
            continue
        replay.say(clause)
    return replay.things
