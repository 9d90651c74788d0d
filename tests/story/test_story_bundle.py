"""The shipped story model as a user gets it: exported, verified, and drawing what the text says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgcc_export.build import build
from mgcc_export.options import BuildOptions
from mgcc_export.targets import Target, choose_recipe
from mgcc_ref.model import load_model
from mgcc_ref.pipeline import ReferencePipeline
from mgcc_ref.precision import Precision
from mgcc_ref.story.world.scene import IMAGE_PX, Background, backdrop
from mgcc_ref.story.world.sprites import LABELS, sprite
from mgcc_runtime import NoteCode, Pipeline, Result
from mgcc_runtime.cli import main
from mgcc_runtime.measure.similarity import psnr_db
from mgcc_runtime.stopwatch import Stopwatch
from tests.runtime.cancel_latency import LATENCY_MS, latencies_ms

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: The folder of `make demo`: whoever runs both, builds once; the builder's cache decides what is stale.
BUNDLE = ROOT / "build" / "story-cpu-fp32"


@pytest.fixture(scope="module")
def bundle() -> Path:
    recipe = choose_recipe(Target.CPU, Precision.FP32)
    build(BuildOptions("story", recipe, BUNDLE, ROOT / "build" / ".cache"), lambda *_: None)
    return BUNDLE


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Pipeline:
    with Pipeline.load(bundle) as loaded:
        yield loaded


def test_verify_passes(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every stage against PyTorch on golden data, one whole request with the same text and PSNR >= 45 dB."""
    assert main(["verify", "--bundle", str(bundle)]) == 0
    assert "FAIL" not in capsys.readouterr().out


def nearest_sprite(image: Image.Image, xyxy: tuple[int, int, int, int]) -> str:
    """The label whose art, drawn at the box's size, differs least from the picture over its own opaque pixels."""
    pixels = np.asarray(image, dtype=np.float32) / 255
    left, top, right, bottom = xyxy
    distances = {}
    for label in LABELS:
        art = sprite(label, max(right - left, bottom - top))
        height, width = art.shape[:2]
        y, x = (top + bottom - height) // 2, (left + right - width) // 2
        y, x = min(max(y, 0), IMAGE_PX - height), min(max(x, 0), IMAGE_PX - width)
        patch = pixels[y : y + height, x : x + width]
        alpha = art[..., 3:]
        distances[label] = float((alpha * (patch - art[..., :3]) ** 2).sum() / alpha.sum())
    return min(distances, key=distances.__getitem__)


def test_given_boxes_hold_the_named_objects(pipeline: Pipeline) -> None:
    """One object a picture, all 32 labels, in a fixed box; the reader is plain template matching."""
    right = 0
    for i, label in enumerate(LABELS):
        art = sprite(label, 56)
        left, top = (8, 60) if i % 2 else (64, 12)
        box = (left, top, left + art.shape[1], top + art.shape[0])
        drawn = pipeline.generate([f"A {label} in the snow."], seed=i, boxes=[{"label": label, "xyxy": box}], steps=12)
        right += nearest_sprite(drawn.image, box) == label
    assert right >= 26, f"only {right} of 32 objects are recognisable"


BACKGROUNDS = {
    Background.MEADOW: "We are on the meadow.", Background.BEACH: "We are at the beach.",
    Background.NIGHT: "It is night.", Background.SNOW: "We are in the snow.",
    Background.DESERT: "We are in the desert.", Background.ROOM: "We are in the room.",
}  # fmt: skip


def test_nothing_to_place_draws_the_bare_background(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """45 to 51 dB from the world's own; told of no box at all, the UNet makes things up (23 dB and less of some)."""

    def far_db(background: Background) -> float:
        found = pipeline.generate([BACKGROUNDS[background]])
        assert found.boxes == () and [note.code for note in found.notes] == [NoteCode.NOTHING_TO_PLACE]
        return psnr_db(np.asarray(found.image), np.rint(backdrop(background) * 255).astype(np.uint8))

    assert min(map(far_db, BACKGROUNDS)) > 40
    monkeypatch.setattr(pipeline.phrases, "views", lambda layout: (layout,))
    assert far_db(Background.MEADOW) < 30


STORIES = [
    (["A large fox is on the left.", "A balloon is at the top right."], {"fox", "balloon"}),
    (["The friends are on the beach. A cake is at the bottom right."], {"cake"}),
    (["Out at night, a penguin is in the middle.", "The penguin moves to the bottom left corner."], {"penguin"}),
]


@pytest.mark.parametrize(("texts", "labels"), STORIES, ids=["two", "one", "moved"])
def test_the_text_says_who_is_there(pipeline: Pipeline, texts: list[str], labels: set[str]) -> None:
    found = pipeline.generate(texts, seed=1, steps=2)
    assert {box.label for box in found.boxes} == labels


def test_a_friend_known_from_a_picture_only(pipeline: Pipeline) -> None:
    friend = Image.open(ROOT / "examples" / "demo" / "friend.png")
    parts = ["Here is my friend.", friend, "My friend moves to the bottom left corner."]
    found = pipeline.generate(parts, steps=2)
    assert [box.label for box in found.boxes] == ["fox"]
    x1, y1, x2, y2 = found.boxes[0].xyxy
    assert (x1 + x2) / 2 < IMAGE_PX / 2 < (y1 + y2) / 2


def test_same_seed_same_picture(pipeline: Pipeline) -> None:
    first, again = (pipeline.generate(["A bus in the desert."], seed=4, steps=4, words=5) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.text == again.text


def test_cancel_bites_within_150_ms_while_900_words_are_read(pipeline: Pipeline) -> None:
    """At random moments, most of them within the reading."""
    words = "The fox sits under the big tree near a red balloon. " * 90
    parts = [" ".join(words.split()[:900])]
    assert max(latencies_ms(pipeline, parts, words=0, rounds=10)) <= LATENCY_MS


def test_it_draws_when_asked_and_decides_as_the_reference_does(pipeline: Pipeline) -> None:
    turns = {
        "A fox is on the beach.": False,
        "Now let me see it, please!": True,
        "What do foxes eat?": False,
        "Draw it again with a balloon on the left.": True,
        "No picture yet, I am still thinking.": False,
    }
    chat = pipeline.chat()
    assert [isinstance(chat.answer(turn, words=1, steps=1), Result) for turn in turns] == [*turns.values()]
    prompts, told = pipeline.prompts, list(turns)
    context = pipeline.read(prompts.build(told), Stopwatch())
    logit = pipeline.decision.logit(context, prompts.finish(prompts.draft(told[-1:])), prompts.closing.length)
    assert logit == pytest.approx(ReferencePipeline(load_model("story")).draw_logit(told), abs=0.02)
