"""Events that move things, take them away or change the background, and clauses that change nothing."""

from __future__ import annotations

from dataclasses import replace

from mgcc_ref.story.placing import choose_relation, free_label, put_by_relation, sample_side
from mgcc_ref.story.telling.appearing import newcomer_at, room, vacated
from mgcc_ref.story.telling.state import moved_to
from mgcc_ref.story.telling.teller import Teller
from mgcc_ref.story.telling.words import class_of
from mgcc_ref.story.wording.phrases import PLACE_PHRASES, SIZE_WORDS, indefinite, pick, plural
from mgcc_ref.story.world.facts import Member
from mgcc_ref.story.world.layout_words import PLACES, Place, place_of
from mgcc_ref.story.world.scene import Background, Size, place

_CLASS_WORDING_CHANCE = 0.35
_RELATION_CHANCE = 0.35


def _some(teller: Teller, count: int = 1) -> list[Member]:
    """`count` random members that can be named, or as many as there are."""
    known = teller.world.referable()
    return [known[i] for i in teller.rng.permutation(len(known))[:count]]


def leave(teller: Teller) -> str | None:
    """One leaves, sometimes in words of its class."""
    some = _some(teller)
    if not some or len(teller.world.members) < 2:
        return None
    one, kind = some[0], "leave"
    if teller.rng.random() < _CLASS_WORDING_CHANCE:
        kind = f"leave.{class_of(one.label)}"
    slots = teller.reference(one)
    teller.world = teller.world.without(one.key)
    return teller.say(kind, one.label, **slots)


def leave_two(teller: Teller) -> str | None:
    """Two leave together."""
    some = _some(teller, 2)
    if len(some) < 2 or len(teller.world.members) < 3:
        return None
    first, second = some
    slots = teller.reference(first) | teller.other(second)
    teller.world = teller.world.without(first.key, second.key)
    return teller.say("leave_two", first.label, **slots)


def leave_all_but(teller: Teller) -> str | None:
    """All but one leave."""
    some, members = _some(teller), teller.world.members
    if not some or len(members) < 3:
        return None
    slots = teller.reference(some[0], short=False)
    teller.world = teller.world.without(*(m.key for m in members if m.key != some[0].key)).focused(some[0].key)
    return teller.say("leave_all_but", some[0].label, **slots)


def replace_one(teller: Teller) -> str | None:
    """One leaves and a new one comes to its place."""
    some = _some(teller)
    if not some or not _alone_in_its_cell(teller, some[0]):
        return None
    slots = teller.reference(some[0])
    teller.world = teller.world.without(some[0].key)
    new = newcomer_at(teller, place_of(some[0].item.box))
    if new is None:
        return None
    return teller.say("replace", teller.world.members[-1].label, **(slots | {k: new[k] for k in ("a", "noun")}))


def _alone_in_its_cell(teller: Teller, member: Member) -> bool:
    return place_of(member.item.box) in teller.world.free_cells(without=(member.key,))


def takes_over(teller: Teller) -> str | None:
    """One leaves, and another moves to its place."""
    some = _some(teller, 2)
    if len(some) < 2 or not _alone_in_its_cell(teller, some[0]):
        return None
    first, second = some
    moved = moved_to(teller.world, second, place_of(first.item.box), teller.rng, without=(first.key,))
    if moved is None:
        return None
    slots = teller.reference(first) | teller.other(second)
    teller.world = teller.world.without(first.key).changed(moved, focus=second.key)
    return teller.say("takes_over", first.label, **slots)


def follow(teller: Teller) -> str | None:
    """One moves to the place of another that left earlier."""
    gone, some = vacated(teller), _some(teller)
    if gone is None or not some or some[0].label == gone.item.label:
        return None
    moved = moved_to(teller.world, some[0], gone.place, teller.rng)
    if moved is None:
        return None
    slots = teller.reference(some[0]) | {"old": f"the {gone.noun}"}
    teller.world = teller.world.changed(moved, focus=moved.key)
    return teller.say("follow", moved.label, **slots)


def move(teller: Teller) -> str | None:
    """One moves to another place, or beside others."""
    some = _some(teller)
    if not some:
        return None
    one, others = some[0], [m for m in _some(teller, 5) if m.key != some[0].key]
    slots = teller.reference(one)
    if others and teller.rng.random() < _RELATION_CHANCE:
        relation, anchors = choose_relation(others, teller.rng)
        where = teller.by(relation, anchors)
        free = [m for m in teller.world.members if m.key != one.key]
        moved = put_by_relation(one, relation, anchors, free, teller.rng)
    else:
        spots = [p for p in teller.world.free_cells() if p is not place_of(one.item.box)]
        spot = pick(spots, teller.rng)
        where, moved = teller.at(spot), moved_to(teller.world, one, spot, teller.rng)
    if moved is None or set(moved.anchors) & {m.key for m in teller.world.members if one.key in m.anchors}:
        return None
    teller.world = teller.world.changed(moved, focus=one.key)
    return teller.say("move", one.label, **(slots | where))


def move_straight(teller: Teller) -> str | None:
    """One moves along its row or column to an edge."""
    some = _some(teller)
    if not some or some[0].place is None:
        return None
    one = some[0]
    row, column = divmod(PLACES.index(some[0].place), 3)
    ways = {"up": (0, column), "down": (2, column), "left": (row, 0), "right": (row, 2)}
    way = pick([w for w, cell in ways.items() if cell != (row, column)], teller.rng)
    spot = PLACES[3 * ways[way][0] + ways[way][1]]
    moved = moved_to(teller.world, one, spot, teller.rng) if spot in teller.world.free_cells() else None
    if moved is None:
        return None
    slots = teller.reference(one)
    teller.world = teller.world.changed(moved, focus=one.key)
    return teller.say(f"move_straight.{way}", one.label, **slots)


def swap(teller: Teller) -> str | None:
    """Two exchange their places; the only two things are called "they"."""
    some = _some(teller, 2)
    if len(some) < 2:
        return None
    first, second = some
    here, there = place_of(first.item.box), place_of(second.item.box)
    both = (first.key, second.key)
    if here is there or not {here, there} <= set(teller.world.free_cells(without=both)):
        return None
    moved = moved_to(teller.world, first, there, teller.rng, without=both)
    back = moved_to(teller.world, second, here, teller.rng, without=both)
    if moved is None or back is None:
        return None
    short = len(teller.world.members) == 2 and teller.rng.random() < 0.35
    slots = {} if short else teller.reference(first, short=False) | teller.other(second)
    teller.world = teller.world.changed(moved, back, focus=None)
    return teller.say("swap_two" if short else "swap", first.label, **slots)


def one_of_two(teller: Teller) -> str | None:
    """One of two things of a label leaves or moves: "the one on the left"."""
    members = teller.world.members
    twins = [m for m in members if sum(o.label == m.label for o in members) == 2 and m.place is not None]
    if not twins:
        return None
    one = pick(twins, teller.rng)
    words = teller.by_place(one, tuple(m for m in members if m.label == one.label))
    if words is None:
        return None
    noun = teller.world.nouns[one.key]
    slots = {"one": f"{words} of the two {plural(noun)}" if teller.rng.random() < 0.4 else words}
    slots |= {"one_bare": words.removeprefix("the "), "plural": plural(noun)}
    if teller.rng.random() < 0.5:
        if len(members) < 3:
            slots["one"] = words
        teller.world = teller.world.without(one.key)
        return teller.say("one_leaves", one.label, **slots)
    spot = pick(teller.world.free_cells(), teller.rng)
    moved = moved_to(teller.world, one, spot, teller.rng)
    if moved is None:
        return None
    teller.world = teller.world.changed(moved, focus=None)
    return teller.say("one_moves", one.label, **(slots | teller.at(spot)))


def resize(teller: Teller) -> str | None:
    """One grows or shrinks where it stands."""
    some = _some(teller)
    if not some:
        return None
    one, order = some[0], list(Size)
    new = pick([s for s in Size if s is not one.item.size], teller.rng)
    changed = replace(one, item=place(one.label, one.item.centre, sample_side(new, teller.rng)))
    kind = "grow" if order.index(new) > order.index(one.item.size) else "shrink"
    slots = teller.reference(one) | {"size": pick(SIZE_WORDS[new], teller.rng)}
    cast = teller.world.cast
    members = tuple(changed if m.key == one.key else m for m in cast.members)
    teller.world = replace(teller.world, cast=replace(cast, members=members, focus=one.key))
    return teller.say(kind, one.label, **slots)


def travel(teller: Teller) -> str | None:
    """The background changes."""
    was = teller.world.cast.background
    now = pick([b for b in Background if b is not was], teller.rng)
    teller.world = teller.world.in_setting(now)
    return teller.say("travel", None, **teller.setting(now, was))


def opening(teller: Teller) -> str:
    """The first background."""
    here = teller.world.cast.background
    return teller.say("opening", None, **teller.setting(here, here))


# -- corrections: a wrong statement, then the right one ------------------------------------------------------------


def wrong_place(teller: Teller) -> str | None:
    """A new thing is put at a wrong place first."""
    if not room(teller):
        return None
    slots = newcomer_at(teller)
    if slots is None:
        return None
    one = teller.world.members[-1]
    wrong = pick([p for p in PLACE_PHRASES if p is not one.place], teller.rng)
    first = teller.say("appear", one.label, **(slots | teller.at(wrong)))
    it = teller.world.genders[one.key]
    return _then(first, teller.say("fix_place", one.label, it=it, where=slots["where"]), teller)


def wrong_noun(teller: Teller) -> str | None:
    """A new thing is called something else first."""
    if not room(teller):
        return None
    slots = newcomer_at(teller)
    if slots is None:
        return None
    one, noun = teller.world.members[-1], teller.noun(free_label(teller.world.cast, teller.rng))
    words = {"a": indefinite(noun), "noun": noun, "bare_noun": noun, "a_pron": "it"}
    first = teller.say("appear", one.label, **(slots | words))
    fix = teller.say("fix_noun", one.label, a=slots["a"], wrong=indefinite(noun), bare_wrong=noun)
    return _then(first, fix, teller)


def mixed_up(teller: Teller) -> str | None:
    """Two new things are put at each other's place first."""
    if not room(teller, 2):
        return None
    found: list[tuple[Member, dict[str, str]]] = []
    for _ in range(2):
        slots = newcomer_at(teller)
        if slots is None:
            return None
        found.append((teller.world.members[-1], slots))
    (first, a), (second, b) = found
    wrong = {k: b[k] for k in ("where", "bare")}, {k: a[k] for k in ("where", "bare")}
    said = _then(
        teller.say("appear", first.label, **(a | wrong[0])),
        teller.say("appear", second.label, **(b | wrong[1])),
        teller,
    )
    names = teller.reference(first, short=False) | teller.other(second)
    teller.world = teller.world.focused(None)
    fix = teller.say("fix_mixed", first.label, **names, p1=a["where"], p2=b["where"])
    return _then(said, fix, teller)


def _then(first: str, second: str, teller: Teller) -> str:
    return f"{first}{pick(('. ', '. ', ' - ', '... '), teller.rng)}{second}"


# -- nothing changes -----------------------------------------------------------------------------------------------


def beside_the_point(teller: Teller) -> str | None:
    """A clause that changes nothing: an absent thing, a dream, a likeness, another background, a thing that stays."""
    kind = pick(("absent", "absent", "wish", "like", "setting_wish", "stays", "aside"), teller.rng)
    slots = teller.absent()
    some = _some(teller)
    if kind in ("wish", "like", "setting_wish", "stays"):
        if not some:
            return None
        slots |= teller.reference(some[0])
        teller.world = teller.world.focused(None)
    if kind == "setting_wish":
        here = teller.world.cast.background
        slots |= teller.setting(here, pick([b for b in Background if b is not here], teller.rng))
    return teller.say(kind, some[0].label if some else None, **slots)


def restate(teller: Teller) -> str | None:
    """The known place of a thing, or a place where it is not."""
    known = [m for m in _some(teller, 5) if m.place is not None]
    if not known or known[0].place is None:
        return None
    slots = teller.reference(known[0]) | told_at(teller, known[0].place)
    teller.world = teller.world.focused(known[0].key)
    return teller.say(pick(("told", "denied"), teller.rng), known[0].label, **slots)


def told_at(teller: Teller, spot: Place) -> dict[str, str]:
    """Slots of a place, and of a wrong one."""
    here, wrong = teller.at(spot), teller.at(pick([p for p in PLACE_PHRASES if p is not spot], teller.rng))
    where = here["where"]
    return here | {
        "where_cap": where[0].upper() + where[1:],
        "wrong_where": wrong["where"],
        "wrong_bare": wrong["bare"],
    }


def named_first(teller: Teller) -> str | None:
    """Several things are named in a row, then placed one by one, in another order."""
    count = int(teller.rng.integers(2, 4))
    if not room(teller, count):
        return None
    new: list[tuple[Member, str]] = []
    for _ in range(count):
        slots = newcomer_at(teller)
        if slots is None:
            return None
        new.append((teller.world.members[-1], slots["a"]))
    words = [a for _, a in new]
    said = [teller.say("named", None, things=f"{', '.join(words[:-1])} and {words[-1]}")]
    teller.world = teller.world.focused(None)
    for index in teller.rng.permutation(count):
        one = new[index][0]
        if one.place is None:
            return None
        kind = "told" if teller.rng.random() < 0.8 else "denied"
        said.append(teller.say(kind, one.label, **(teller.reference(one, short=False) | told_at(teller, one.place))))
    return pick((". ", ". ", "; "), teller.rng).join(said)
