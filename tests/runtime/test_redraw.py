"""A picture drawn again from its scene: nothing is read, things keep their phrases, and what did not change stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mgcc_runtime import (
    Box,
    BoxesReady,
    Cancel,
    CancelledError,
    ClosedError,
    ImageReady,
    InputError,
    LayoutError,
    OptionError,
    Pipeline,
    Result,
    StepPreview,
)
from mgcc_runtime.bundle.folder import Bundle
from tests.runtime.golden_data import gradient
from tests.runtime.test_cancelling import each_call

PARTS = ["A cat.", gradient(8, 8), "It sits."]
DRAWING = {"unet", "unet_plain", "solver", "vae_decoder"}


def pixels(result: Result) -> bytes:
    return np.asarray(result.image).tobytes()


@pytest.fixture(scope="module", params=["pipe", "paper_pipe"])
def loaded(request: pytest.FixtureRequest) -> Pipeline:
    """With a list of labels, and with a phrase encoder and gates."""
    found: Pipeline = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def drawn(loaded: Pipeline) -> Result:
    """Its things are the grounder's where that finds some, as that of `paper_pipe` does."""
    side = loaded.bundle.manifest.dimensions.image_px
    given = [{"label": "cat", "xyxy": [0, 0, side / 2, side]}, {"label": "cat", "xyxy": [side / 4, 0, side, side]}]
    return loaded.generate(PARTS, seed=3, words=3, boxes=given if loaded.labels.names else "auto")


def moved(box: Box, loaded: Pipeline) -> Box:
    side = loaded.bundle.manifest.dimensions.image_px
    return replace(box, xyxy=(0.0, 0.0, side / 2, side / 4))


def asked(drawn: Result) -> dict[str, Any]:
    """How `drawn` was, without its seed."""
    return {"parts": PARTS, "boxes": drawn.scene.request.boxes}


def test_boxes_have_ids(drawn: Result, loaded: Pipeline) -> None:
    assert len(drawn.boxes) > 1
    assert [box.id for box in drawn.boxes] == [str(number) for number in range(1, len(drawn.boxes) + 1)]
    side = loaded.bundle.manifest.dimensions.image_px
    given = [
        {"label": "cat", "xyxy": [0, 0, side, side], "id": "2"}, {"label": "cat", "xyxy": [0, 0, 8, 8]},
        {"label": "cat", "xyxy": [0, 0, 4, 4]},
    ]  # fmt: skip
    assert [box.id for box in loaded.generate(["A cat."], boxes=given, steps=1).boxes] == ["2", "1", "3"]


def test_another_seed_is_what_a_reading_draws(drawn: Result, loaded: Pipeline) -> None:
    with each_call(loaded.stages, lambda _: None) as calls:
        again = loaded.redraw(drawn.scene, seed=7)
    assert {*calls} <= DRAWING
    assert pixels(again) == pixels(loaded.generate(**asked(drawn), seed=7, words=3))
    assert (again.seed, again.text, again.text_tokens, again.boxes) == (7, drawn.text, drawn.text_tokens, drawn.boxes)
    assert {"llm_prefill", "refiner", "grounder", "llm_decode"}.isdisjoint(again.timings)
    assert pixels(loaded.redraw(drawn.scene)) == pixels(drawn), "as it was"
    assert pixels(loaded.redraw(again.scene, seed=3)) == pixels(drawn), "and from another redrawing"
    assert pixels(loaded.redraw(drawn.scene, steps=2)) == pixels(loaded.generate(**asked(drawn), seed=3, steps=2))


def test_boxes_given_back_draw_the_same(drawn: Result, loaded: Pipeline) -> None:
    """As they are, in another order, and as JSON has them, which rounds."""
    for boxes in (drawn.boxes, drawn.boxes[::-1], [box.to_json() for box in drawn.boxes]):
        with each_call(loaded.stages, lambda _: None) as calls:
            again = loaded.redraw(drawn.scene, boxes=boxes)
        assert pixels(again) == pixels(drawn)
        assert {*calls} <= DRAWING, "no phrase is encoded anew"


def test_a_moved_box_keeps_its_phrase(drawn: Result, loaded: Pipeline) -> None:
    first, *others = drawn.boxes
    there = moved(first, loaded)
    with each_call(loaded.stages, lambda _: None) as calls:
        result = loaded.redraw(drawn.scene, boxes=[there, *others])
    assert {*calls} <= DRAWING
    assert pixels(result) != pixels(drawn)
    layout, before = result.scene.layout, drawn.scene.layout
    np.testing.assert_array_equal(layout.phrase_embeddings, before.phrase_embeddings)
    np.testing.assert_array_equal(layout.box_mask, before.box_mask)
    slot = drawn.scene.places[first.id].slot
    np.testing.assert_allclose(layout.boxes[0, slot], [0, 0, 0.5, 0.25])
    assert (layout.boxes != before.boxes).any(axis=2).sum() == 1, "the others stay"
    assert pixels(loaded.redraw(result.scene, boxes=drawn.boxes)) == pixels(drawn), "and moved back"


def test_what_the_label_alone_would_draw_is_another_thing(paper_pipe: Pipeline) -> None:
    """The known mistake: without its id a box is encoded anew from its label, the word that the grounder pointed to."""
    drawn = paper_pipe.generate(PARTS, seed=3)
    nameless = [replace(box, id="") for box in drawn.boxes]
    with each_call(paper_pipe.stages, lambda _: None) as calls:
        other = paper_pipe.redraw(drawn.scene, boxes=nameless)
    assert calls.count("phrase_encoder") == len(drawn.boxes)
    assert np.abs(other.scene.layout.phrase_embeddings - drawn.scene.layout.phrase_embeddings).max() > 0.01
    assert {box.id for box in other.boxes}.isdisjoint(box.id for box in drawn.boxes)


def test_things_come_and_go(drawn: Result, loaded: Pipeline) -> None:
    first, *others = drawn.boxes
    new = {"label": "cat" if loaded.labels.names else "a dragon", "xyxy": [1, 1, 9, 9]}
    fewer = loaded.redraw(drawn.scene, boxes=others)
    assert [box.id for box in fewer.boxes] == [box.id for box in others]
    more = loaded.redraw(fewer.scene, boxes=[*fewer.boxes, new])
    assert more.boxes[-1].id not in {box.id for box in drawn.boxes}, "the id of what went away is not given again"
    back = loaded.redraw(more.scene, boxes=[first, *others])
    slots = drawn.scene.places[first.id].slot, back.scene.places[first.id].slot
    np.testing.assert_array_equal(
        back.scene.layout.phrase_embeddings[0, slots[1]], drawn.scene.layout.phrase_embeddings[0, slots[0]]
    )
    renamed = loaded.redraw(drawn.scene, boxes=[replace(first, label=new["label"]), *others])
    np.testing.assert_array_equal(
        renamed.scene.places[first.id].phrase, loaded.phrases.embed(str(new["label"])), "another label is another thing"
    )
    assert loaded.redraw(drawn.scene, boxes="none").boxes == ()
    assert pixels(loaded.redraw(drawn.scene, boxes="none")) == pixels(loaded.generate(PARTS, seed=3, boxes="none"))


def test_as_a_stream_that_can_be_cancelled(drawn: Result, loaded: Pipeline) -> None:
    events = list(loaded.stream_redraw(drawn.scene, steps=4, preview_every=2))
    assert [type(event) for event in events] == [BoxesReady, *[StepPreview] * (len(events) - 2), ImageReady]
    steps = [event for event in events if isinstance(event, StepPreview)]
    assert [event.image is not None for event in steps] == [event.step % 2 == 0 for event in steps]
    cancel = Cancel()
    with each_call(loaded.stages, lambda _: cancel.cancel()) as calls, pytest.raises(CancelledError):
        loaded.redraw(drawn.scene, cancel=cancel)
    assert len(calls) == 1


def test_what_cannot_be_drawn_is_refused(drawn: Result, loaded: Pipeline) -> None:
    with pytest.raises(LayoutError, match="boxes is 'auto', which takes a reading"):
        loaded.redraw(drawn.scene, boxes="auto")
    twice = [drawn.boxes[0], moved(drawn.boxes[0], loaded)]
    with pytest.raises(LayoutError, match="two boxes have the id '1', expected one each"):
        loaded.redraw(drawn.scene, boxes=twice)
    for odd in (7, "x" * 65, None):
        with pytest.raises(LayoutError, match=r"has id .*, expected a text of at most 64 characters"):
            loaded.redraw(drawn.scene, boxes=[{"label": "cat", "xyxy": [0, 0, 4, 4], "id": odd}])
    with pytest.raises(OptionError, match="seed is -1"):
        loaded.redraw(drawn.scene, seed=-1)
    with pytest.raises(OptionError, match="steps is 999"):
        loaded.redraw(drawn.scene, steps=999)
    if loaded.labels.names:
        with pytest.raises(LayoutError, match="label 'qqqq' is not one this bundle can draw"):
            loaded.redraw(drawn.scene, boxes=[replace(drawn.boxes[0], label="qqqq")])
    with pytest.raises(InputError, match="the scene is another bundle's"):
        loaded.redraw(replace(drawn.scene, bundle="0" * 64))


def test_several_pictures_of_one_reading(loaded: Pipeline) -> None:
    with each_call(loaded.stages, lambda _: None) as calls:
        results = loaded.generate_several(PARTS, 3, seed=5, steps=4)
    once = next(i for i, name in enumerate(calls) if name in DRAWING)
    assert {*calls[once:]} <= DRAWING
    assert [result.seed for result in results] == [5, 6, 7]
    for result in results:
        assert pixels(result) == pixels(loaded.generate(PARTS, seed=result.seed, steps=4))
    with pytest.raises(OptionError, match="n is 0, expected a whole number from 1 to 64"):
        loaded.generate_several(PARTS, 0)


def test_a_closed_pipeline_redraws_nothing(bundle_path: str) -> None:
    with Pipeline.load(bundle_path) as pipeline:
        scene = pipeline.generate(["A cat."], steps=1).scene
    with pytest.raises(ClosedError):
        pipeline.redraw(scene)


def test_a_digest_is_of_what_draws(bundle_path: str, paper_pipe: Pipeline, pipe: Pipeline) -> None:
    bundle = Bundle.open(bundle_path)
    assert bundle.digest == pipe.bundle.digest != paper_pipe.bundle.digest
    later = replace(bundle, manifest=replace(bundle.manifest, built_at="2001-01-01"))
    other = replace(bundle, manifest=replace(bundle.manifest, default_steps=2))
    assert later.digest == bundle.digest != other.digest
