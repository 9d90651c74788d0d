"""Tellings: the words say what the world is, the same seed says the same, and no word run of validation is in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from mgcc_ref.story.dialogues import dialogue_templates
from mgcc_ref.story.free_english import free_items
from mgcc_ref.story.telling.apart import LONGEST_SHARED, keeps_apart, runs
from mgcc_ref.story.telling.tellings import Telling, make_telling
from mgcc_ref.story.telling.words import class_of, data, label_of_form, noun_pattern, nouns_of
from mgcc_ref.story.wording import phrases
from mgcc_ref.story.wording.patterns import every_wording
from mgcc_ref.story.wording.phrases import Bank, Kind, Split, specific_settings, templates
from mgcc_ref.story.world.layout_words import Place, is_at, place_of
from mgcc_ref.story.world.scene import Background, fits
from mgcc_ref.train.fresh_conversations import fresh_conversation
from mgcc_ref.train.requests import Points, training_conversation

from .telling_replay import replayed

COUNT = 250


@pytest.fixture(scope="module")
def many() -> list[Telling]:
    return [make_telling(np.random.default_rng([7, i])) for i in range(COUNT)]


def test_the_clauses_slots_alone_give_the_scene(many: list[Telling]) -> None:
    """Replayed by another state machine, which knows nouns and places by their words and nothing of the world."""
    for telling in many:
        for point, said in zip(telling.points, telling.said, strict=True):
            if not isinstance(telling.parts[0], str):
                continue  # what a first picture shows is in no clause
            things = replayed(said)
            scene = point.scene
            assert Counter(t.label for t in things) == Counter(o.label for o in scene.objects), said
            for thing in things:
                cells = [place_of(o.box) for o in scene.objects if o.label == thing.label]
                assert thing.cell is None or thing.cell in cells, (thing, said)


def test_told_positions_hold_and_nothing_is_hidden(many: list[Telling]) -> None:
    for telling in many:
        for point in telling.points:
            items = point.scene.objects
            assert items
            assert all(fits(item, items[:i]) for i, item in enumerate(items))
            for fact in point.facts:
                assert items[fact.index].label == fact.label
                assert is_at(items[fact.index].box, fact.fact, tolerance=0.005)


def test_every_text_is_a_point_and_pictures_show_the_scene_before_them(many: list[Telling]) -> None:
    for telling in many:
        scenes = {p.parts: p.scene for p in telling.points}
        assert [n + 1 for n, part in enumerate(telling.parts) if isinstance(part, str)] == sorted(scenes)
        for number, part in enumerate(telling.parts):
            if number and not isinstance(part, str):
                assert part == scenes[number]
    shown = sum(any(not isinstance(p, str) for p in t.parts) for t in many)
    assert 0.2 * COUNT < shown < 0.6 * COUNT


def test_same_seed_same_telling(many: list[Telling]) -> None:
    assert make_telling(np.random.default_rng([7, 3])) == many[3]
    assert len({t.parts for t in many}) == COUNT
    texts = [[p for p in fresh_conversation(4, i % 5).parts if isinstance(p, str)] for i in range(10)]
    assert texts[:5] == texts[5:]


def test_every_kind_of_clause_is_said() -> None:
    said = {s.kind for i in range(500) for s in make_telling(np.random.default_rng([8, i])).said[-1]}
    assert set(data("clauses")) - said <= {"opener", "ask", "vacant", "leave.plant", "leave.sky"}


#: What each kind must have said for its words to tell what happened: one of each group.
NEEDED = {
    **dict.fromkeys(("appear", "item"), ("a|noun|bare_noun", "where|bare")),
    "side": ("a|noun", "rel"),
    "has_by": ("the", "rel", "a"),
    "between_new": ("x", "y", "p1", "p2", "a"),
    **dict.fromkeys(("leave", "leave_all_but", "leave.animal", "leave.vehicle", "leave.thing"), ("the|bare_the",)),
    **dict.fromkeys(("leave.plant", "leave.sky", "leave.food"), ("the",)),
    **dict.fromkeys(("leave_two", "swap", "takes_over"), ("the|bare_the", "other|bare_other")),
    "replace": ("the|bare_the|a_the", "a|noun"),
    "vacant": ("old",),
    "return_same": ("old",),
    "return_new": ("old|bare_old", "where|bare"),
    "move": ("the|bare_the", "where|bare"),
    **{f"move_straight.{way}": ("the",) for way in ("up", "down", "left", "right")},
    "follow": ("the", "old"),
    "fix_place": ("where",),
    "fix_noun": ("a",),
    "fix_mixed": ("the", "other", "p1", "p2"),
    "told": ("the|bare_the", "where|where_cap|bare"),
    "denied": ("the|bare_the", "where|bare", "wrong_where|wrong_bare"),
    **dict.fromkeys(("grow", "shrink"), ("the|bare_the", "size")),
    "pair": ("plural|bare_noun", "p1", "p2"),
    "pair_loose": ("plural",),
    "again": ("bare_noun|plural", "where"),
    "one_leaves": ("one|one_bare",),
    "one_moves": ("one", "where"),
    "named": ("things",),
    **dict.fromkeys(("list", "around"), ("items",)),
    **dict.fromkeys(("opening", "travel"), ("setting|bare_setting",)),
    **dict.fromkeys(("absent", "wish", "like"), ("absent|bare_absent|absent_plural",)),
    "setting_wish": ("bare_other_setting",),
    **dict.fromkeys(("swap_two", "aside", "ask", "opener", "stays"), ()),
}


def patterns() -> Iterator[tuple[str, str]]:
    return ((kind, p) for kind, bank in data("clauses").items() for ps in bank.values() for p in ps)


def test_every_wording_says_all_that_its_kind_means() -> None:
    assert set(NEEDED) == set(data("clauses"))
    for kind, pattern in patterns():
        for wording in every_wording(pattern):
            slots = set(re.findall(r"\{(\w+)\}", wording))
            for group in NEEDED[kind]:
                assert slots & set(group.split("|")), (kind, wording)
            assert set(re.findall(r"\[(\w+)[*@]?\]", wording)) - set(data("verbs")["forms"]) <= {"standing"}, wording


def test_nouns_belong_to_one_label_and_every_label_has_a_class() -> None:
    every = Counter(noun for label in data("nouns")["of"] for noun in set(nouns_of(label)))
    assert max(every.values()) == 1
    for label in data("nouns")["of"]:
        assert class_of(label) in data("nouns")["adjectives"]
        for noun in data("nouns")["of"][label]:
            assert label_of_form()[noun_pattern().findall(noun)[-1].lower()] == label, noun


COLUMNS = {"left": ("left", "west"), "right": ("right", "east")}
ROWS = {
    "top": ("top", "topmost", "upper", "high", "up", "overhead", "north"),
    "bottom": ("bottom", "lower", "low", "down", "foreground", "south", "below"),
}


@pytest.mark.parametrize("place", list(Place))
@pytest.mark.parametrize("table", ["at", "bare", "one"])
def test_words_of_a_place_are_its_own(place: Place, table: str) -> None:
    """By their sides: "on the left, high up" is no place but the top left."""
    for phrase in data("places")[table][place.value]:
        words = re.sub(r"^right (?=in|at)|halfway up |, right$", "", phrase.replace("-", " ")).split()
        words = [w.strip(",") for w in words]
        for sides in (COLUMNS, ROWS):
            for side, names in sides.items():
                assert bool(set(names) & set(words)) == (side in place.value.split("-")), (phrase, side)


def test_backgrounds_have_words() -> None:
    for table in ("setting", "bare_setting"):
        assert set(data("places")[table]) == {b.value for b in Background}


def test_validation_texts_are_refused() -> None:
    for item in free_items():
        for text in item.texts:
            if len(text.split()) > 12:
                assert not keeps_apart(text), text
    assert keeps_apart("A fox stands at the top in the middle, and nobody knows what it is waiting for.")


def test_no_training_text_shares_six_words_with_a_validation_text() -> None:
    validation = {run for item in free_items() for text in item.texts for run in runs(text)}
    shared: Counter[tuple[str, ...]] = Counter()
    for index in range(200):
        for part in fresh_conversation(11, index).parts:
            if isinstance(part, str):
                shared.update(validation.intersection(runs(part)))
    assert {" ".join(run) for run in shared} <= {"at the top in the middle", "at the bottom in the middle"}


def test_states_in_between_are_points_too() -> None:
    """Of things that have been named, with their places where they were told."""
    more = 0
    for index in range(120):
        whole = training_conversation(5, index)
        every = training_conversation(5, index, points=Points.ALL)
        assert every.parts == whole.parts or len(every.parts) == len(whole.parts)
        assert {(p.parts, p.target) for p in whole.points} <= {(p.parts, p.target) for p in every.points}
        assert len({p.parts for p in every.points}) == len(every.points)
        more += len(every.points) - len(whole.points)
        for point in every.points:
            assert point.target.objects
            boxes = [o.box for o in point.target.objects]
            for fact in point.facts:
                assert point.target.objects[fact.index].label == fact.label
                assert is_at(boxes[fact.index], fact.with_anchor_boxes(boxes), tolerance=0.01)
    assert more > 120


def split_wordings(split: Split) -> Iterator[str]:
    for kind in Kind:
        yield from templates(kind, split)
    for background in Background:
        yield from specific_settings(background, split)
    for bank in phrases.patterns(split, Bank.DIALOGUES):
        yield from dialogue_templates(bank, split)


def own_wordings() -> Iterator[str]:
    """Of tellings and rewordings."""
    extra = data("rewordings")
    own = [p for _, p in patterns()]
    own += [*extra["openers"], *extra["asides"], *(o for others in extra["phrases"].values() for o in others)]
    return (wording for pattern in own for wording in every_wording(pattern))


def slot_runs(wording: str) -> set[tuple[str, ...]]:
    """Runs of words and slots, all slots alike."""
    return set(runs(re.sub(r"\{\w+\}", " slot ", re.sub(r"\[(\w+)[*@]?\]", r"\1", wording))))


@pytest.mark.parametrize("split", [Split.VALIDATION, Split.TEST])
def test_no_wording_shares_six_words_with_a_held_back_phrasing(split: Split) -> None:
    held_back = {run for wording in split_wordings(split) for run in slot_runs(wording)}
    assert len(next(iter(held_back))) == LONGEST_SHARED + 1
    for wording in own_wordings():
        assert not held_back & slot_runs(wording), wording


def test_test_phrasings_share_six_words_with_no_other_split() -> None:
    """Slots count as words: "is {the} {where} or" is a run of its own only beside words of its own."""
    test = {run for wording in split_wordings(Split.TEST) for run in slot_runs(wording)}
    for split in (Split.TRAIN, Split.VALIDATION):
        for wording in split_wordings(split):
            assert not test & slot_runs(wording), wording
