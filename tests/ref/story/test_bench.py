"""StoryBench's items: the same stories in every setting, held-back phrasings, and only what is told is expected."""

from __future__ import annotations

import itertools
import re

import pytest

from mgcc_ref.story.bench import (
    SETTINGS,
    BenchSetting,
    Suite,
    bench_item,
    bench_items,
    labels_named_in,
    places_named_in,
    setting_of,
)
from mgcc_ref.story.dialogues import DialogueSetting, dialogue_templates
from mgcc_ref.story.stories import Setting
from mgcc_ref.story.wording.phrases import Bank, Kind, Split, patterns, templates
from mgcc_ref.story.world.layout_words import Place, PlaceFact

ITEMS = 200
MADE = (Suite.STORIES, Suite.DIALOGUES)  # from templates
EVERY = [(suite, setting) for suite in MADE for setting in SETTINGS[suite]]


@pytest.mark.parametrize(("suite", "setting"), EVERY)
def test_expected_is_what_the_shown_parts_name(suite: Suite, setting: BenchSetting) -> None:
    whole = setting in (Setting.CAPTIONS_5_IMAGES_4, DialogueSetting.ROUNDS_10)
    for item in bench_items(suite, setting, ITEMS):
        text = " ".join(item.texts)
        named, indices = labels_named_in(text), {e.index for e in item.expected}
        for expected in item.expected:
            assert item.target.objects[expected.index].label == expected.label
            assert whole or expected.label in named
            if expected.fact is not None:
                assert indices.issuperset(expected.fact.anchors)
                if not whole and isinstance(expected.fact.fact, PlaceFact):
                    assert expected.fact.fact.place in places_named_in(text)
        if whole:
            assert len(item.expected) == len(item.target.objects)
            assert all(e.fact is not None for e in item.expected)
            assert item.background is item.target.background
        assert item.story_labels >= {thing.label for thing in item.target.objects}


def test_settings_show_the_same_stories_and_tell_ever_more() -> None:
    for suite in MADE:
        told = []
        for setting in SETTINGS[suite]:
            items = list(bench_items(suite, setting, 40))
            assert [i.target for i in items] == [bench_item(suite, SETTINGS[suite][0], n).target for n in range(40)]
            told.append([{e.index for e in i.expected} for i in items])
        for less, more in itertools.pairwise(told):
            assert all(a <= b for a, b in zip(less, more, strict=True))
        assert sum(map(len, told[0])) < sum(map(len, told[-1]))


def test_swapped_places_are_not_told_by_the_swap_alone() -> None:
    """ "They swap places" in the only caption shown names two things and says where neither is."""
    found = 0
    for item in bench_items(Suite.STORIES, Setting.CAPTION_1, 400):
        if "position" in item.texts[0] and "reversed" in item.texts[0] and not places_named_in(item.texts[0]):
            placed = [e for e in item.expected if e.fact is not None and isinstance(e.fact.fact, PlaceFact)]
            assert placed == []
            found += 1
    assert found > 3


def test_seeds_and_numbers_are_independent() -> None:
    first = bench_item(Suite.STORIES, Setting.CAPTIONS_5, 3, seed=0)
    assert first == bench_item(Suite.STORIES, Setting.CAPTIONS_5, 3, seed=0)
    assert first.parts != bench_item(Suite.STORIES, Setting.CAPTIONS_5, 3, seed=1).parts
    assert first.parts != bench_item(Suite.STORIES, Setting.CAPTIONS_5, 4, seed=0).parts


HELD_BACK = (Split.VALIDATION, Split.TEST)


def test_splits_have_items_of_their_own() -> None:
    for suite in (Suite.STORIES, Suite.DIALOGUES):
        setting = SETTINGS[suite][-1]
        items = [[bench_item(suite, setting, n, split=split) for n in range(30)] for split in HELD_BACK]
        assert not {i.target for i in items[0]} & {i.target for i in items[1]}
        assert not {t for i in items[0] for t in i.texts} & {t for i in items[1] for t in i.texts}


def test_longest_noun_counts() -> None:
    assert labels_named_in("A Palm Tree, two oaks; the red fox's present.") == ["palm tree", "tree", "fox", "gift"]
    assert labels_named_in("the football starts") == ["ball"]


def test_places_are_not_seen_in_relations_and_settings() -> None:
    assert places_named_in("It is in the middle of the left side, in the middle of the night.") == {Place.LEFT}
    assert places_named_in("It waits on the left side of the fox, right next to a house.") == set()
    assert places_named_in("On the left side one notices a cat in the top right corner.") == {
        Place.LEFT,
        Place.TOP_RIGHT,
    }


@pytest.mark.parametrize("split", [Split.VALIDATION, Split.TEST])
def test_held_back_templates_name_no_object_by_themselves(split: Split) -> None:
    """What a text names must come from its slots, or objects would be expected that nobody told."""
    lines = [line for kind in Kind for line in templates(kind, split)]
    lines += [line for kind in patterns(split, Bank.DIALOGUES) for line in dialogue_templates(kind, split)]
    bare = [re.sub(r"\{\w+\}", "", line) for line in lines]
    assert [line for line in bare if labels_named_in(line) or places_named_in(line)] == []


def test_unknown_setting() -> None:
    assert setting_of(Suite.STORIES, "5+4") is Setting.CAPTIONS_5_IMAGES_4
    with pytest.raises(ValueError, match="setting '10' is none of suite stories, which has 1, 5, 5\\+4"):
        setting_of(Suite.STORIES, "10")
