"""Each fault in a picture lowers its own score and no other; the pictures go through the real reader."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from mgcc_benchmarks.storybench.crispness import score_crispness
from mgcc_benchmarks.storybench.evaluation import score_drawn
from mgcc_benchmarks.storybench.painters import Drawn, true_boxes
from mgcc_benchmarks.storybench.reader import read_picture, to_picture
from mgcc_benchmarks.storybench.scores import SCENE_SCORES, score_scene, score_text
from mgcc_ref.story.bench import BenchItem, ExpectedObject, Suite
from mgcc_ref.story.stories import Setting
from mgcc_ref.story.world.facts import ObjectFact, Source, Told
from mgcc_ref.story.world.layout_words import Place, PlaceFact, Relation, RelationFact
from mgcc_ref.story.world.scene import Background, Scene, backdrop, place, render
from mgcc_ref.story.world.sprites import sprite

TOLD = Told(Source.TEXT, 1)
FOX, HOUSE, BALLOON = place("fox", (0.5, 0.8), 40), place("house", (0.2, 0.8), 46), place("balloon", (0.8, 0.2), 36)
SCENE = Scene(Background.MEADOW, (FOX, HOUSE, BALLOON))
FACTS = (
    ObjectFact(0, "fox", RelationFact(Relation.RIGHT_OF, (HOUSE.box,)), (1,), TOLD, TOLD),
    ObjectFact(1, "house", PlaceFact(Place.BOTTOM_LEFT), (), TOLD, TOLD),
    ObjectFact(2, "balloon", PlaceFact(Place.TOP_RIGHT), (), TOLD, TOLD),
)


@pytest.fixture
def item() -> BenchItem:
    return BenchItem(
        Suite.STORIES, Setting.CAPTIONS_5_IMAGES_4, 0, ("A fox, a house and a balloon.",), SCENE,
        tuple(ExpectedObject(f.index, f.label, f) for f in FACTS), Background.MEADOW,
        frozenset({"fox", "house", "cat"}),
    )  # fmt: skip


def shares(item: BenchItem, picture: np.ndarray) -> dict[str, float]:
    tallies = score_scene(item, read_picture(to_picture(Image.fromarray(picture))))
    return {name: t.right / t.counted if t.counted else float("nan") for name, t in tallies.items()}


def with_objects(*objects: object) -> np.ndarray:
    return render(replace(SCENE, objects=objects))  # type: ignore[arg-type]


def faults(item: BenchItem, picture: np.ndarray) -> set[str]:
    """Scores below 1, less `whole_scene`, which any fault must lower."""
    found = {name for name, share in shares(item, picture).items() if share != 1}
    assert ("whole_scene" in found) == bool(found), found
    return found - {"whole_scene"}


def test_true_picture_has_no_fault(item: BenchItem) -> None:
    assert set(shares(item, render(SCENE))) == set(SCENE_SCORES)
    assert faults(item, render(SCENE)) == set()


def test_missing_object(item: BenchItem) -> None:
    assert faults(item, with_objects(FOX, HOUSE)) == {"object_recall"}


def test_additional_object(item: BenchItem) -> None:
    assert faults(item, with_objects(*SCENE.objects, place("cake", (0.2, 0.2), 40))) == {"object_precision"}


def test_swapped_object(item: BenchItem) -> None:
    found = faults(item, with_objects(FOX, HOUSE, place("apple", BALLOON.centre, 36)))
    assert found == {"object_recall", "object_precision"}


def test_shifted_object(item: BenchItem) -> None:
    assert faults(item, with_objects(FOX, HOUSE, place("balloon", (0.25, 0.2), 36))) == {"position_accuracy"}


def test_relation_is_judged_where_its_anchor_was_drawn(item: BenchItem) -> None:
    """The house in the wrong place, the fox right of it all the same: one fault of two."""
    moved = with_objects(place("fox", (0.5, 0.35), 40), place("house", (0.2, 0.35), 46), BALLOON)
    assert shares(item, moved)["position_accuracy"] == pytest.approx(2 / 3)


def test_wrong_background(item: BenchItem) -> None:
    assert faults(item, render(replace(SCENE, background=Background.ROOM))) == {"background_accuracy"}


@pytest.mark.parametrize("kind", ["silhouette", "ellipse", "soft"])
def test_blob_of_the_right_colour_is_no_object(item: BenchItem, kind: str) -> None:
    canvas = backdrop(Background.MEADOW).copy()
    for thing in SCENE.objects:
        art = sprite(thing.label, thing.long_side_px)
        height, width = art.shape[:2]
        colour = art[..., :3].sum(axis=(0, 1)) / art[..., 3].sum()
        alpha = art[..., 3:]
        if kind == "ellipse":
            y, x = np.mgrid[:height, :width]
            alpha = ((2 * y / height - 1) ** 2 + (2 * x / width - 1) ** 2 < 1).astype(np.float32)[..., None]
        art = np.concatenate([alpha * colour, alpha], axis=-1)
        if kind == "soft":
            art = gaussian_filter(sprite(thing.label, thing.long_side_px), (7, 7, 0))
        left, top = round(thing.box[0] * 128), round(thing.box[1] * 128)
        region = canvas[top : top + height, left : left + width]
        region[:] = region * (1 - art[..., 3:]) + art[..., :3]
    found = shares(item, (canvas * 255).astype(np.uint8))
    assert found["object_recall"] == 0
    assert found["background_accuracy"] == 1


def test_what_is_not_told_is_neither_wanted_nor_wrong(item: BenchItem) -> None:
    short = replace(item, expected=item.expected[2:], background=None)
    assert shares(short, with_objects(BALLOON))["whole_scene"] == 1
    both = shares(short, with_objects(BALLOON, FOX))
    assert (both["whole_scene"], both["object_precision"]) == (1, 1)
    assert shares(short, with_objects(BALLOON, place("cake", (0.2, 0.2), 40)))["whole_scene"] == 0
    nothing = replace(short, expected=())
    assert score_scene(nothing, read_picture(to_picture(Image.fromarray(render(SCENE)))))["whole_scene"].counted == 0


def test_two_of_a_kind_are_matched_by_place() -> None:
    near, far = place("star", (0.2, 0.2), 36), place("star", (0.8, 0.8), 36)
    facts = (
        ObjectFact(0, "star", PlaceFact(Place.TOP_LEFT), (), TOLD, TOLD),
        ObjectFact(1, "star", PlaceFact(Place.BOTTOM_RIGHT), (), TOLD, TOLD),
    )
    scene = Scene(Background.NIGHT, (near, far))
    pair = BenchItem(
        Suite.STORIES, Setting.CAPTIONS_5, 0, ("Two stars.",), scene,
        tuple(ExpectedObject(f.index, f.label, f) for f in facts), Background.NIGHT, frozenset({"star"}),
    )  # fmt: skip
    assert faults(pair, render(replace(scene, objects=(far, near)))) == set()
    assert faults(pair, render(replace(scene, objects=(near,)))) == {"object_recall"}


def test_crispness_knows_the_sprite_and_its_sharpness() -> None:
    boxes = true_boxes(SCENE)
    sharp = to_picture(Image.fromarray(render(SCENE)))
    soft = gaussian_filter(sharp, (1.5, 1.5, 0))
    best, worse = (score_crispness(p, boxes, Background.MEADOW) for p in (sharp, soft))
    assert best["template_top1"].right == best["template_top1"].counted == 3
    assert best["sprite_psnr_db"].right / 3 > 40
    assert worse["sprite_psnr_db"].right / 3 < 28
    wrong = [("apple", boxes[2][1]), ("no such thing", boxes[0][1])]
    spoiled = score_crispness(sharp, wrong, Background.MEADOW)
    assert (spoiled["template_top1"].right, spoiled["template_top1"].counted) == (0, 1)
    assert spoiled["sprite_psnr_db"].right < 20


def test_text_names(item: BenchItem) -> None:
    some = score_text(item, "The fox and a kitten look at two rockets under the palm tree.")
    assert (some["text_names_right"].right, some["text_names_right"].counted) == (2, 4)
    assert some["text_names_any"].right == 1
    none = score_text(item, "Nothing else happens.")
    assert (none["text_names_right"].counted, none["text_names_any"].right) == (0, 0)


def test_scores_that_were_not_asked_for_count_nothing(item: BenchItem) -> None:
    drawn = Drawn(Image.fromarray(render(SCENE)), true_boxes(SCENE), None)
    tallies = score_drawn(item, drawn, None)
    assert tallies["clip_similarity"].counted == tallies["text_names_any"].counted == 0
    likened = score_drawn(item, drawn, lambda drawn, truth: 0.5)
    assert (likened["clip_similarity"].right, likened["clip_similarity"].counted) == (0.5, 1)
