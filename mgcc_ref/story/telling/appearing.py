"""Events that bring things into a telling. An event says its clause and changes the world, or returns None."""

from __future__ import annotations

from dataclasses import replace

from mgcc_ref.story.placing import choose_relation, free_label, put_by_relation
from mgcc_ref.story.telling.state import Departed, World, moved_to, new_member
from mgcc_ref.story.telling.teller import Teller
from mgcc_ref.story.wording.phrases import pick, plural
from mgcc_ref.story.world.facts import Member
from mgcc_ref.story.world.layout_words import INVERSE, Place, Relation
from mgcc_ref.story.world.scene import MAX_OBJECTS

_RELATION_CHANCE = 0.4
_VACANT_CHANCE = 0.5
_AROUND = (Relation.LEFT_OF, Relation.RIGHT_OF, Relation.ABOVE, Relation.BELOW)
_JOINERS = (", ", ", ", "; ", " and ", ", and ", " while ", ", plus ")


def room(teller: Teller, count: int = 1) -> bool:
    """Whether `count` more things fit into the scene."""
    return len(teller.world.members) + count <= MAX_OBJECTS


def newcomer_at(teller: Teller, spot: Place | None = None) -> dict[str, str] | None:
    """Add a new thing to the world, at `spot` or at any free place; returns its slots."""
    size, word = teller.size()
    member = new_member(teller.world, free_label(teller.world.cast, teller.rng), size, teller.rng)
    spot = spot or pick(teller.world.free_cells(), teller.rng)
    placed = moved_to(teller.world, member, spot, teller.rng)
    return None if placed is None else _come_in(teller, placed, word) | teller.at(spot)


def _come_in(teller: Teller, placed: Member, size_word: str) -> dict[str, str]:
    noun = teller.noun(placed.label)
    gender = teller.gender(placed.label)
    teller.world = teller.world.with_new(placed, noun, gender)
    return teller.new_words(placed.label, noun, size_word) | {"a_pron": gender}


def appear(teller: Teller) -> str | None:
    """A thing comes to a place, to the place of a thing that left, or beside others."""
    if not room(teller):
        return None
    gone = vacated(teller)
    if gone is not None and teller.rng.random() < _VACANT_CHANCE:
        slots = newcomer_at(teller, gone.place)
        if slots is None:
            return None
        where = pick_vacant(teller, gone)
        return teller.say("appear", _label(teller), **(slots | {"where": where, "bare": where}))
    anchors = teller.world.referable()
    if anchors and teller.rng.random() < _RELATION_CHANCE:
        return _appear_by(teller, anchors)
    slots = newcomer_at(teller)
    return None if slots is None else teller.say("appear", _label(teller), **slots)


def _appear_by(teller: Teller, anchors: list[Member]) -> str | None:
    relation, chosen = choose_relation(anchors, teller.rng)
    where = teller.by(relation, chosen)
    size, word = teller.size()
    member = new_member(teller.world, free_label(teller.world.cast, teller.rng), size, teller.rng)
    placed = put_by_relation(member, relation, chosen, teller.world.members, teller.rng)
    if placed is None:
        return None
    return teller.say("appear", placed.label, **(_come_in(teller, placed, word) | where))


def vacated(teller: Teller) -> Departed | None:
    """The last thing that left, if its place is empty."""
    gone = teller.world.departed[-1] if teller.world.departed else None
    return gone if gone is not None and gone.place in teller.world.free_cells() else None


def pick_vacant(teller: Teller, gone: Departed) -> str:
    """ "where the fox was"."""
    pattern = teller.voice.pattern("vacant", teller.rng)
    return pattern.format_map(teller.old(gone))


def listed(teller: Teller) -> str | None:
    """Several things in one sentence, each with its place."""
    count = int(teller.rng.integers(2, 5))
    if not room(teller, count):
        return None
    items, before = [], len(teller.said)
    for _ in range(count):
        slots = newcomer_at(teller)
        if slots is None:
            del teller.said[before:]
            return None
        items.append(teller.say("item", _label(teller), **slots))
    return teller.say("list", None, items=_joined(teller, items))


def _joined(teller: Teller, items: list[str]) -> str:
    if len(items) == 1:
        return items[0]
    joiner = pick(_JOINERS, teller.rng)
    return f"{joiner.join(items[:-1])}{' and ' if joiner == ', ' and teller.rng.random() < 0.7 else joiner}{items[-1]}"


def around_one(teller: Teller) -> str | None:
    """A thing at a place, and one to three others to its sides."""
    count = int(teller.rng.integers(1, 4))
    if not room(teller, count + 1):
        return None
    slots = newcomer_at(teller)
    if slots is None:
        return None
    middle = teller.world.members[-1]
    said, items = teller.say("appear", middle.label, **slots), []
    for index in teller.rng.permutation(len(_AROUND))[:count]:
        found = _beside(teller, _AROUND[index], middle)
        if found is None:
            return None
        rel, slots = found
        items.append(teller.say("side", _label(teller), **(slots | {"rel": rel})))
    teller.world = teller.world.focused(middle.key)
    return f"{said}, {teller.say('around', None, items=_joined(teller, items))}"


def _beside(teller: Teller, relation: Relation, middle: Member) -> tuple[str, dict[str, str]] | None:
    size, word = teller.size()
    member = new_member(teller.world, free_label(teller.world.cast, teller.rng), size, teller.rng)
    placed = put_by_relation(member, relation, [middle], teller.world.members, teller.rng)
    if placed is None:
        return None
    rel = teller.of_focus(relation, middle)
    return rel, _come_in(teller, placed, word)


def has_by(teller: Teller) -> str | None:
    """A thing of the world gets a new one at its side."""
    known = teller.world.referable()
    if not room(teller) or not known:
        return None
    middle = pick(known, teller.rng)
    the = teller.reference(middle)
    found = _beside(teller, pick(tuple(INVERSE), teller.rng), middle)
    if found is None:
        return None
    rel, slots = found
    teller.world = teller.world.focused(None)
    return teller.say("has_by", middle.label, **(slots | the | {"rel": rel, "a": slots["a"]}))


def between_new(teller: Teller) -> str | None:
    """Two things at places and a third between them."""
    if not room(teller, 3):
        return None
    ends: list[Member] = []
    slots: dict[str, str] = {}
    for x, p in (("x", "p1"), ("y", "p2")):
        found = newcomer_at(teller)
        if found is None:
            return None
        ends.append(teller.world.members[-1])
        slots |= {x: found["a"], p: found["where"]}
    size, word = teller.size()
    member = new_member(teller.world, free_label(teller.world.cast, teller.rng), size, teller.rng)
    placed = put_by_relation(member, Relation.BETWEEN, ends, teller.world.members, teller.rng)
    if placed is None:
        return None
    return teller.say("between_new", placed.label, **(slots | _come_in(teller, placed, word)))


def pair(teller: Teller) -> str | None:
    """Two things of one label, at two places that the text tells or leaves out."""
    if not room(teller, 2):
        return None
    label, (size, word) = free_label(teller.world.cast, teller.rng), teller.size()
    noun, world, spots = teller.noun(label), teller.world, []
    loose = teller.rng.random() < 0.25
    for _ in range(2):
        spot = pick(world.free_cells(), teller.rng)
        placed = moved_to(world, new_member(world, label, size, teller.rng), spot, teller.rng)
        if placed is None:
            return None
        world = world.with_new(_untold(placed) if loose else placed, noun, "it")
        spots.append(teller.at(spot)["where"])
    teller.world = world.focused(None)
    words = f"{word} {noun}".strip()
    slots = {"plural": plural(words), "bare_noun": words}
    if loose:
        return teller.say("pair_loose", label, **slots)
    return teller.say("pair", label, **slots, p1=spots[0], p2=spots[1])


def _untold(member: Member) -> Member:
    return replace(member, place=None, relation=None, anchors=())


def again(teller: Teller) -> str | None:
    """A second thing of a label that the world has once."""
    known = [m for m in teller.world.referable() if not teller.world.cast.is_anchor(m.key)]
    if not room(teller) or not known:
        return None
    one = pick(known, teller.rng)
    noun, spot = teller.world.nouns[one.key], pick(teller.world.free_cells(), teller.rng)
    member = new_member(teller.world, one.label, one.item.size, teller.rng)
    placed = moved_to(teller.world, member, spot, teller.rng)
    if placed is None:
        return None
    teller.world = teller.world.with_new(placed, noun, "it").focused(None)
    return teller.say("again", one.label, bare_noun=noun, plural=plural(noun), **teller.at(spot))


def _label(teller: Teller) -> str:
    return teller.world.members[-1].label


def come_back(teller: Teller) -> str | None:
    """A thing that left returns, to its old place or to a new one."""
    world = teller.world
    labels = {m.label for m in world.members}
    gone = [d for d in world.departed if d.item.label not in labels]
    if not gone or not room(teller):
        return None
    one = pick(gone, teller.rng)
    same = one.place in world.free_cells() and teller.rng.random() < 0.5
    spot = one.place if same else pick(world.free_cells(), teller.rng)
    placed = moved_to(world, new_member(world, one.item.label, one.item.size, teller.rng), spot, teller.rng)
    if placed is None:
        return None
    teller.world = _forget(world, one).with_new(placed, one.noun, one.gender)
    slots = teller.old(one) | teller.at(spot)
    return teller.say("return_same" if same else "return_new", placed.label, **slots)


def _forget(world: World, one: Departed) -> World:
    return replace(world, departed=tuple(d for d in world.departed if d is not one))
