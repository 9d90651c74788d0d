"""Suite `free`: its file is read whole, and a scene is right only as its note says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mgcc_benchmarks.storybench.reader import Reading, ReadObject
from mgcc_benchmarks.storybench.scores import SCENE_SCORES, score_free
from mgcc_ref.story.free_english import BORDER, FreeItem, FreeSetting, WantedPlace, free_items
from mgcc_ref.story.world.scene import Background, Box
from mgcc_ref.story.world.sprites import LABELS

KINDS = {FreeSetting.CAPTION: 20, FreeSetting.STORY: 25, FreeSetting.STORY_IMAGE: 20, FreeSetting.DIALOGUE: 15}
ITEM = FreeItem(
    7, FreeSetting.CAPTION, ("A fox on the left, any ball.",),
    (WantedPlace("fox", "left", "any"), WantedPlace("ball", "any", "any")), Background.SNOW,
)  # fmt: skip


def at(label: str, x: float, y: float = 0.5) -> ReadObject:
    box: Box = (x - 0.1, y - 0.1, x + 0.1, y + 0.1)
    return ReadObject(label, box, 1.0, 1.0)


RIGHT = (at("fox", 0.2), at("ball", 0.8))


def whole(*objects: ReadObject, background: Background = Background.SNOW, item: FreeItem = ITEM) -> float:
    return score_free(item, Reading(objects, background))["whole_scene"].right


def test_all_eighty_are_there_and_can_be_drawn() -> None:
    assert {kind: len(free_items(kind)) for kind in KINDS} == KINDS
    assert len(free_items()) == len({item.number for item in free_items()}) == 80
    for item in free_items():
        assert item.texts and item.inputs()
        assert {w.label for w in item.wanted} <= set(LABELS) and item.wanted
        for wanted, shown in zip(item.wanted, item.target.objects, strict=True):
            assert wanted.holds(shown.box), "what people are shown as right is right"


@pytest.mark.parametrize(
    ("x", "columns"),
    [
        (0.1, {"left"}), (1 / 3 + BORDER - 0.001, {"left", "centre"}), (1 / 3 + BORDER + 0.001, {"centre"}),
        (0.5, {"centre"}),
        (2 / 3 - BORDER + 0.001, {"centre", "right"}), (0.9, {"right"}),
    ],
)  # fmt: skip
def test_a_border_counts_for_both_neighbours(x: float, columns: set[str]) -> None:
    box: Box = (x - 0.05, 0.4, x + 0.05, 0.6)
    assert {c for c in ("left", "centre", "right") if WantedPlace("fox", c, "any").holds(box)} == columns


def test_a_scene_is_whole_only_with_everything_in_place_and_nothing_else() -> None:
    assert whole(*RIGHT) == 1
    assert whole(at("fox", 0.2)) == 0, "the ball is missing"
    assert whole(at("fox", 0.8), at("ball", 0.8)) == 0, "the fox stands on the right"
    assert whole(*RIGHT, at("cat", 0.5)) == 0, "a cat is there"
    assert whole(*RIGHT, background=Background.ROOM) == 0
    assert whole(*RIGHT, background=Background.ROOM, item=replace(ITEM, background=None)) == 1
    assert whole(*RIGHT, at("fox", 0.9)) == 1, "any one of several foxes"


def test_scores_count_what_the_others_do() -> None:
    scores = score_free(ITEM, Reading((at("fox", 0.8), at("cat", 0.5)), Background.SNOW))
    assert set(scores) == set(SCENE_SCORES)
    told = {name: (t.right, t.counted) for name, t in scores.items()}
    assert told == {
        "object_recall": (1, 2), "object_precision": (1, 2), "position_accuracy": (0, 1),
        "background_accuracy": (1, 1), "whole_scene": (0, 1),
    }  # fmt: skip
