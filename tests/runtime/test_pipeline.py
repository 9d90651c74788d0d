"""Whole requests on real engines."""

import inspect
import json
from dataclasses import MISSING, fields
from functools import partial

import numpy as np
import onnx
import pytest

from mgcc_runtime import Box, BoxesReady, ImageReady, Pipeline, StepPreview, TextDelta, TextOptions
from mgcc_runtime.engines import AtOnce
from mgcc_runtime.errors import ClosedError, InputError, LayoutError, MgccError, OptionError, StageValueError
from mgcc_runtime.images.conversion import fit_square, pixel_values
from mgcc_runtime.request import Request, RequestOptions
from mgcc_runtime.stopwatch import Stopwatch
from mgcc_runtime.text.pieces import see_in_pieces
from tests.runtime.golden_data import gradient
from tests.runtime.tiny_bundle import reseal

PARTS = ["A cat.", gradient(8, 8), "It sits."]


def pixels(result):
    return np.asarray(result.image).tobytes()


def test_result(paper_pipe):
    result = paper_pipe.generate(PARTS, seed=4, words=3, steps=4)
    assert (result.image.size, result.image.mode, result.seed) == ((64, 64), "RGB", 4)
    assert result.text
    assert result.text_tokens
    assert {box.label for box in result.boxes} <= {"A", "cat", "It", "sits"}
    stages = {"vision_encoder", "llm_prefill", "llm_decode", "llm_image_tokens", "refiner", "grounder", "unet"}
    assert stages | {"prompt", "solver", "vae_decoder", "total"} == set(result.timings)
    assert sum(ms for name, ms in result.timings.items() if name != "total") <= result.timings["total"]


def test_same_seed_same_bytes(pipe, bundle_path):
    first, second = pipe.generate(PARTS, seed=1, words=4), pipe.generate(PARTS, seed=1, words=4)
    assert pixels(first) == pixels(second)
    assert (first.text_tokens, first.boxes) == (second.text_tokens, second.boxes)
    with Pipeline.load(bundle_path, threads=1) as other:
        assert pixels(other.generate(PARTS, seed=1)) == pixels(first)


def test_every_input_matters(paper_pipe):
    draw = partial(paper_pipe.generate, steps=20)
    base = pixels(draw(PARTS))
    assert base != pixels(draw(PARTS, seed=1))
    assert base != pixels(draw(PARTS, steps=2))
    assert base != pixels(draw(PARTS, guidance=5.0))
    assert base != pixels(draw(PARTS, boxes="none"))
    assert base != pixels(draw(["A cat.", gradient(9, 8).rotate(90), "It sits."]))
    assert base != pixels(draw([*PARTS[::-1]]))
    assert base == pixels(draw(PARTS, words=5))


def test_more_images_than_one_batch(pipe, dimensions, monkeypatch):
    count, side = dimensions.images + 1, dimensions.vision_px
    pictures = [gradient(8, 8).rotate(40 * i) for i in range(count)]
    assert pipe.generate(pictures).image.size == (32, 32)
    vision, small = pipe.bundle.manifest.vision, [fit_square(picture, side) for picture in pictures]
    apart = [pipe.stages.see(pixel_values([picture], side, vision)) for picture in small]
    monkeypatch.setattr(pipe.stages.sessions["vision_encoder"], "at_once", AtOnce(positions=64, images=10**6))
    together = see_in_pieces(pipe.stages, small, vision, Stopwatch())
    np.testing.assert_allclose(together, np.concatenate(apart), atol=1e-5)


def test_stream_is_generate(pipe):
    events = list(pipe.stream(PARTS, seed=2, words=3, preview_every=2))
    kinds = [type(event) for event in events]
    texts, previews = kinds.count(TextDelta), kinds.count(StepPreview)
    assert kinds == [TextDelta] * texts + [BoxesReady] + [StepPreview] * previews + [ImageReady]
    assert [e.step for e in events if isinstance(e, StepPreview)] == [1, 2, 3, 4]
    assert [e.image is not None for e in events if isinstance(e, StepPreview)] == [False, True, False, True]
    result = events[-1].result
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == result.text
    assert events[texts].boxes == result.boxes
    assert pixels(result) == pixels(pipe.generate(PARTS, seed=2, words=3))


def test_generate_and_stream_take_the_same():
    ours = {name: str(kind.__forward_arg__) for name, kind in RequestOptions.__annotations__.items()}
    del ours["preview_every"], ours["preview"]  # whoever waits for the end alone sees none
    theirs = {**inspect.signature(Pipeline.generate).parameters}
    of_stream = {**inspect.signature(Pipeline.stream).parameters}
    assert all(theirs.pop(name) == of_stream[name] for name in ("self", "parts", "cancel"))
    assert {name: parameter.annotation for name, parameter in theirs.items()} == ours
    defaults = {field.name: field.default for field in fields(Request) if field.default is not MISSING}
    filled_in = dict.fromkeys(("steps", "guidance", "grounder", "text"))
    assert {name: parameter.default for name, parameter in theirs.items()} == {
        name: (defaults | filled_in)[name] for name in ours
    }


def test_an_unknown_option_is_refused(pipe):
    """As Python refuses a keyword; what a text is written by is none of a redrawing."""
    scene = pipe.generate(PARTS).scene
    for call in (
        lambda: pipe.stream(PARTS, sed=1), lambda: pipe.chat().stream("A cat.", sed=1),
        lambda: pipe.redraw(scene, words=3), lambda: pipe.redraw(scene, text=None),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"^unexpected option (sed|words|text), expected some of seed, steps, "):
            call()


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_cancelled_request_leaves_the_pipeline_usable(pipe, after):
    expected = pixels(pipe.generate(PARTS, seed=3, words=2))
    cancelled = pipe.stream(["Something else."], seed=9, words=2)
    for _ in range(after):
        next(cancelled)
    cancelled.close()
    assert pixels(pipe.generate(PARTS, seed=3, words=2)) == expected


def test_streams_side_by_side(pipe):
    expected = pixels(pipe.generate(PARTS, seed=3)), pixels(pipe.generate(["A dog."], seed=5))
    one, two = pipe.stream(PARTS, seed=3), pipe.stream(["A dog."], seed=5)
    *_, (last_one, last_two) = zip(one, two, strict=True)
    assert (pixels(last_one.result), pixels(last_two.result)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is -1, expected a whole number from 0"),
        ({"seed": 1.5}, r"seed is 1\.5, expected a whole number"),
        ({"seed": True}, "seed is True, expected a whole number"),
        ({"steps": 0}, "steps is 0, expected a whole number from 1"),
        ({"steps": 51}, "steps is 51, expected 1 to 50"),
        ({"words": -2}, "words is -2"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"guidance": -1.0}, r"guidance is -1\.0, expected a number from 0 to 100"),
        ({"guidance": True}, "guidance is True, expected a number"),
        ({"text": "hello"}, "text is 'hello', expected TextOptions"),
        ({"text": 0}, "text is 0, expected TextOptions"),
        ({"boxes": "some"}, "boxes is 'some'"),
        ({"boxes": [{"label": "cow", "xyxy": [0, 0, 9, 9]}]}, "label 'cow' is not one"),
        ({"boxes": [{"label": "cat", "xyxy": [0, 0, 99, 9]}]}, "outside the image"),
        ({"words": 1000}, "more than the context of 256"),
    ],
)
def test_bad_options_are_refused_at_once(pipe, arguments, message):
    with pytest.raises(InputError, match=message):
        pipe.stream(PARTS, **arguments)  # not at the first event
    assert pipe.generate(["a"], steps=1).image


def test_words(pipe):
    for words in (1, 2, 5):
        assert len(pipe.generate(PARTS, words=words).text.split()) <= words
    assert pipe.generate(PARTS, words=0).text == ""


def test_sampled_text_follows_the_seed(pipe):
    options = TextOptions(temperature=1.5)
    texts = {pipe.generate(["a"], seed=seed, words=2, text=options).text_tokens for seed in (1, 1, 2, 3)}
    assert len(texts) == 3


def test_boxes_of_the_user(pipe):
    given = [{"label": "dog", "xyxy": [0, 0, 16, 16]}, Box("tree", (8, 8, 30, 32))]
    result = pipe.generate(PARTS, boxes=given)
    assert result.boxes == (Box("dog", (0, 0, 16, 16)), Box("tree", (8, 8, 30, 32)))
    assert pixels(result) != pixels(pipe.generate(PARTS, boxes="none"))
    assert pixels(pipe.generate(PARTS, boxes=[])) == pixels(pipe.generate(PARTS, boxes="none"))
    again = pipe.generate(PARTS, boxes=[box.to_json() for box in result.boxes])
    assert pixels(again) == pixels(result)


def test_nan_is_named_and_the_pipeline_goes_on(own_bundle):
    """A UNet that breaks at high guidance only."""
    model = onnx.load(own_bundle / "unet.onnx")
    last = next(node for node in model.graph.node if "prediction" in node.output)
    last.output[list(last.output).index("prediction")] = "sound"
    for name, value in (("ten", 10.0), ("zero", 0.0)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    model.graph.node.extend(
        onnx.helper.make_node(kind, inputs, [output])
        for kind, inputs, output in (
            ("Sub", ["ten", "guidance"], "room"), ("Sqrt", ["room"], "root"), ("Mul", ["root", "zero"], "nothing"),
            ("Add", ["sound", "nothing"], "prediction"),
        )
    )  # fmt: skip
    onnx.save(model, own_bundle / "unet.onnx")
    with Pipeline.load(reseal(own_bundle)) as pipeline:
        sound = pixels(pipeline.generate(PARTS))
        with pytest.raises(StageValueError, match="stage unet gave 128 values of NaN or infinity") as caught:
            pipeline.generate(PARTS, guidance=50.0)
        assert caught.value.exit_code == 1
        assert pixels(pipeline.generate(PARTS)) == sound


def test_latents_too_large_are_not_the_unets_fault(pipe, dimensions):
    """Each prediction is finite, their sum is not."""
    shape = (1, dimensions.latent_channels, dimensions.latent_px, dimensions.latent_px)
    x, huge = np.zeros(shape, np.float32), np.full(shape, 3e38, np.float32)
    coefficients = np.array([1, 0, 1, 0], np.float32)
    np.testing.assert_array_equal(pipe.stages.advance(coefficients, [x, x], [x + 1, x]).numpy(), x + 1)
    with pytest.raises(StageValueError, match="stage solver gave NaN or infinity of finite predictions"):
        pipe.stages.advance(coefficients * 2, [x, x], [huge, x])


def test_closed_pipeline(bundle_path):
    pipeline = Pipeline.load(bundle_path)
    running = pipeline.stream(PARTS)
    next(running)
    pipeline.close()
    pipeline.close()
    with pytest.raises(ClosedError, match="the pipeline is closed"):
        pipeline.generate(PARTS)
    with pytest.raises(MgccError, match="is closed"):
        list(running)


def test_too_many_boxes_for_the_bundle(pipe):
    with pytest.raises(LayoutError, match="5 boxes were given, at most 4"):
        pipe.generate(["a"], boxes=[{"label": "cat", "xyxy": [0, 0, 9, 9]}] * 5)


def test_default_steps_come_from_the_manifest(own_bundle):
    values = json.loads((own_bundle / "manifest.json").read_text())
    values["sampling"]["steps"] = 51
    (own_bundle / "manifest.json").write_text(json.dumps(values))
    with Pipeline.load(own_bundle) as pipeline, pytest.raises(OptionError, match="steps is 51"):
        pipeline.generate(["a"])
