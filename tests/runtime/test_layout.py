"""Boxes from the grounder and from users."""

from dataclasses import replace

import numpy as np
import pytest

from mgcc_runtime.bundle.manifest import LayoutRules
from mgcc_runtime.errors import EXIT_BAD_INPUT, LayoutError
from mgcc_runtime.layout import Box, Labels, layout_from_boxes, layout_from_grounder, parse_boxes
from mgcc_runtime.request import box_mode
from tests.runtime.tiny_bundle import DIMENSIONS

WORDS = ("", "a", "", "cat", "runs")


@pytest.fixture
def grounder():
    rng = np.random.default_rng(0)
    return {
        "boxes": np.array([[[0, 0.25, 0.5, 1.1], [0.5, 0.5, 1, 1], [0, 0, 1, 1]]], np.float32),
        "presence": np.array([[0.9, 0.5, 0.49]], np.float32),
        "phrase_embeddings": rng.normal(0, 1, (1, 3, 10)).astype(np.float32),
        "pointers": np.array([[[0.5, 0.1, 0.2, 0.15, 0.05]] * 3], np.float32),
    }


class NoLabels:
    names = ()


def test_threshold_and_scale(grounder):
    layout = layout_from_grounder(grounder, WORDS, NoLabels, DIMENSIONS, LayoutRules(0.5))
    assert [box.xyxy for box in layout.items] == [(0, 8, 16, 32), (16, 16, 32, 32)]
    assert layout.items[0].score == pytest.approx(0.9)
    assert layout.box_mask.tolist() == [[1, 1, 0]]
    assert not layout.boxes[0, 2].any()
    assert not layout.phrase_embeddings[0, 2].any()
    np.testing.assert_array_equal(layout.phrase_embeddings[0, :2], grounder["phrase_embeddings"][0, :2])


def test_pointer_names_a_word_of_the_user(grounder):
    """The most probable position is the template's, which no user said."""
    layout = layout_from_grounder(grounder, WORDS, NoLabels, DIMENSIONS, LayoutRules(0.5))
    assert layout.items[0].label == "cat"
    only_images = layout_from_grounder(grounder, ("",) * 5, NoLabels, DIMENSIONS, LayoutRules(0.5))
    assert only_images.items[0].label == "object"


def test_nearest_label_by_cosine(grounder, pipe):
    labels = Labels(pipe.bundle)
    meant = 100 * labels.embeddings[labels.names.index("sailboat")] + 0.1
    grounder["phrase_embeddings"] = np.tile(meant, (1, 3, 1))
    dimensions = replace(DIMENSIONS, phrase=len(meant))
    assert layout_from_grounder(grounder, WORDS, labels, dimensions, LayoutRules(0.5)).items[0].label == "sailboat"


GOOD = {"label": "cat", "xyxy": [0, 0, 1, 1]}


def test_parse_boxes():
    found = parse_boxes([{"label": " cat ", "xyxy": [0, 1.5, 32.3, 32]}, Box("dog", (0, 0, 4, 4), 0.7)], 32)
    assert found == (Box("cat", (0, 1.5, 32, 32)), Box("dog", (0, 0, 4, 4), 0.7))
    ours = np.arange(4, dtype=np.float32)
    assert parse_boxes([{"label": "cat", "xyxy": [*ours], "score": ours[1]}], 32) == (Box("cat", (0, 1, 2, 3)),)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ({"label": "cat"}, "boxes are dict, expected a list"),
        ([{"xyxy": [0, 0, 1, 1]}], "box 1 has no label"),
        ([{"label": 3, "xyxy": [0, 0, 1, 1]}], "box 1 has no label"),
        (["cat"], "box 1 has no label"),
        ([{"label": "cat", "xyxy": [0, 0, 1]}], r"box 1 \(cat\) has xyxy \[0, 0, 1\], expected four numbers"),
        ([{"label": "cat", "xyxy": "0 0 1 1"}], "expected four numbers"),
        ([{"label": "cat", "xyxy": [0, 0, float("nan"), 1]}], "expected four numbers"),
        ([{"label": "cat", "xyxy": [0, 0, True, 1]}], "expected four numbers"),
        ([{"label": "cat", "xyxy": [0, 0, 10**400, 1]}], "expected four numbers"),
        (
            [{**GOOD, "score": None}],
            r"box 1 \(cat\) has score None, expected a number from 0 to 1; correct it or leave",
        ),
        ([{**GOOD, "score": "high"}], "has score 'high', expected a number"),
        ([{**GOOD, "score": float("nan")}], "has score nan, expected a number"),
        ([GOOD, Box("cat", (0, 0, 1, 1), 1.5)], r"box 2 \(cat\) has score 1\.5, expected a number"),
        ([{"label": "cat", "xyxy": [0, 0, 40, 8]}], r"outside the image of 32x32 pixels; keep .* 0 and 32"),
        ([{"label": "cat", "xyxy": [-5, 0, 4, 8]}], "outside the image"),
        ([{"label": "cat", "xyxy": [8, 0, 4, 8]}], "has no area"),
        ([{"label": "cat", "xyxy": [4, 8, 9, 8]}], "has no area"),
    ],
)
def test_boxes_that_are_refused(boxes, message):
    with pytest.raises(LayoutError, match=message) as caught:
        parse_boxes(boxes, 32)
    assert caught.value.exit_code == EXIT_BAD_INPUT


def test_labels_that_cannot_be_drawn(pipe):
    with pytest.raises(LayoutError, match=r"label 'saleboat' is not one this bundle can draw; nearest: sailboat"):
        pipe.phrases.check([Box("saleboat", (0, 0, 1, 1))])
    with pytest.raises(LayoutError, match="it has cat, dog, fox, lion, "):
        pipe.phrases.check([Box("qqqq", (0, 0, 1, 1))])


def test_too_many_boxes(pipe, dimensions):
    most = dimensions.objects
    with pytest.raises(LayoutError, match=f"{most + 1} boxes were given, at most {most} fit this bundle"):
        pipe.phrases.check([Box("cat", (0, 0, 1, 1))] * (most + 1))


def test_layout_from_boxes():
    embedding = np.arange(10, dtype=np.float32)
    layout = layout_from_boxes([Box("cat", (0, 8, 16, 32))], [embedding], DIMENSIONS)
    assert layout.boxes[0].tolist() == [[0, 0.25, 0.5, 1], [0] * 4, [0] * 4]
    assert layout.box_mask.tolist() == [[1, 0, 0]]
    np.testing.assert_array_equal(layout.phrase_embeddings[0, 0], embedding)


def test_unknown_mode():
    with pytest.raises(LayoutError, match="boxes is 'maybe', expected 'auto', 'none' or a list"):
        box_mode("maybe")
    assert box_mode([]) is None
