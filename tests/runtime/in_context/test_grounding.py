"""The in-context grounder on a device: chosen with the request, nothing read twice, always a layout."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgcc_runtime import BundleError, Cancel, CancelledError, ContextLimitError, Grounder, OptionError, Pipeline
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.cli import main
from mgcc_runtime.in_context.files import Masks
from mgcc_runtime.in_context.writing import write_layout
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.layout_text import CAPTION_END, DEFAULT_PROMPT, longest_line, one_line
from mgcc_runtime.names import LAYOUT_EXAMPLES, LAYOUT_MASKS
from mgcc_runtime.stages import LlmStep
from tests.runtime.tiny_bundle import LABELS

PICTURE = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
EXAMPLES = len(DEFAULT_PROMPT.opening(LABELS).encode())  # positions: a byte is a token there
END = len(CAPTION_END)


@contextmanager
def layout_positions(pipeline: Pipeline) -> Iterator[list[int]]:
    """How many positions each reading of the in-context grounder has."""
    grounder = pipeline.imagining.in_context
    assert grounder is not None
    found: list[int] = []
    read = grounder._read

    def counted(embeddings, cache, watch):
        found.append(embeddings.shape[1])
        return read(embeddings, cache, watch)

    grounder._read = counted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        grounder._read = read  # type: ignore[method-assign]


def caption(text: str) -> int:
    return len(one_line(text))


def test_the_examples_are_read_once_for_a_pipeline(layout_pipe: Pipeline) -> None:
    with layout_positions(layout_pipe) as read:
        first = layout_pipe.generate(["A cat."], steps=1, grounder="in-context")
        second = layout_pipe.generate(["A cat."], steps=1, grounder=Grounder.IN_CONTEXT)
    assert read == [EXAMPLES, caption("A cat."), END, caption("A cat."), END]
    assert first.boxes == second.boxes and first.boxes


def test_a_chats_turns_are_read_once_each(layout_pipe: Pipeline) -> None:
    """And what comes of them is what comes of all in one go."""
    texts, chat = ["A cat sits.", "A dog comes.", "It rains."], layout_pipe.chat()
    with layout_positions(layout_pipe) as read:
        boxes = [chat.send(text, steps=1, grounder="in-context").boxes for text in texts]
    assert read == [EXAMPLES, *(n for text in texts for n in (caption(text), END))]
    whole = layout_pipe.generate(texts, steps=1, grounder="in-context").boxes
    assert [(b.label, b.xyxy) for b in boxes[-1]] == [(b.label, b.xyxy) for b in whole]
    assert boxes[0] != boxes[2]  # later turns count


def test_undo_and_fork_go_on_from_the_right_turn(layout_pipe: Pipeline) -> None:
    """The known mistake: a kept cache of a turn that was taken back."""
    chat = layout_pipe.chat()
    chat.send("A cat sits.", steps=1, grounder="in-context")
    other = chat.fork()
    chat.send("A dog comes and sleeps.", steps=1, grounder="in-context")
    chat.undo()
    for one in (chat, other):
        found = one.send("A tree.", steps=1, grounder="in-context").boxes
        wanted = layout_pipe.generate(["A cat sits.", "A tree."], steps=1, grounder="in-context").boxes
        assert [(b.label, b.xyxy) for b in found] == [(b.label, b.xyxy) for b in wanted]


def test_a_saved_chat_draws_the_same(layout_pipe: Pipeline) -> None:
    chat = layout_pipe.chat()
    chat.send("A cat.", PICTURE, steps=1, grounder="in-context")
    wanted = chat.send("A dog.", steps=1, grounder="in-context")
    again = layout_pipe.resume(chat.recipe())
    drawn = again.redraw(steps=1)
    assert drawn.boxes == wanted.boxes and np.array_equal(np.asarray(drawn.image), np.asarray(wanted.image))


def test_pictures_are_part_of_the_caption(layout_pipe: Pipeline) -> None:
    with layout_positions(layout_pipe) as read:
        with_picture = layout_pipe.generate(["A cat.", PICTURE], steps=1, grounder="in-context")
    marks = 2  # "<" and ">"
    assert read[1] == caption("A cat.") + layout_pipe.bundle.manifest.dimensions.visual_tokens + marks
    inverted = Image.fromarray(255 - np.asarray(PICTURE))
    other = layout_pipe.generate(["A cat.", inverted], steps=1, grounder="in-context")
    assert with_picture.boxes != other.boxes


def test_a_cancelled_reading_leaves_the_pipeline_usable(layout_pipe: Pipeline) -> None:
    cancel = Cancel()
    grounder = layout_pipe.imagining.in_context
    assert grounder is not None
    read = grounder._read

    def cancelled(embeddings, cache, watch):
        cancel.cancel()
        return read(embeddings, cache, watch)

    grounder._read = cancelled  # type: ignore[method-assign]
    with pytest.raises(CancelledError):
        layout_pipe.generate(["A cat."], steps=1, grounder="in-context", cancel=cancel)
    grounder._read = read  # type: ignore[method-assign]
    assert layout_pipe.generate(["A cat."], steps=1, grounder="in-context").boxes


def test_one_check_for_api_and_command_line(
    layout_pipe: Pipeline, pipe: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown word, and a grounder that the bundle has not."""
    for pipeline, value in ((layout_pipe, "head"), (layout_pipe, ""), (pipe, "in-context")):
        with pytest.raises(OptionError) as caught:
            pipeline.request(grounder=value)
        where = ["--bundle", str(pipeline.bundle.root), "--out"]
        for command in (["generate", "--text", "x", *where, str(tmp_path / "x.png")], ["chat", *where, str(tmp_path)]):
            assert main([*command, f"--grounder={value}"]) == 2
            assert capsys.readouterr().err == f"mgcc: {caught.value}\n"
    with pytest.raises(OptionError, match="grounder is 'head', expected layout-head or in-context; choose one"):
        layout_pipe.request(grounder="head")
    assert pipe.request().grounder is layout_pipe.request(grounder=None).grounder is Grounder.LAYOUT_HEAD
    with pytest.raises(OptionError, match="this bundle has layout-head alone; leave it out, or build"):
        pipe.request(grounder="in-context")


def test_a_caption_that_leaves_no_room_is_refused_before_anything_is_read(layout_pipe: Pipeline) -> None:
    room = layout_pipe.bundle.manifest.dimensions.context - EXAMPLES - END
    text = "A cat. " * (room // len("A cat. "))
    with pytest.raises(ContextLimitError, match=r"expected \d+ for a layout's line; shorten the texts"):
        layout_pipe.stream([text], grounder="in-context")
    fits = "x" * (room - longest_line(LABELS) - len("END") - 1)
    with layout_positions(layout_pipe) as read:
        assert len(layout_pipe.generate([fits], steps=1, grounder="in-context").boxes) <= 1
    assert sum(read) + longest_line(LABELS) + len("END") == layout_pipe.bundle.manifest.dimensions.context


def test_examples_may_be_edited(own_layout_bundle: Path, layout_pipe: Pipeline) -> None:
    """They count: in the layouts, and in what a saved chat or a scene belongs to."""
    values = json.loads((own_layout_bundle / LAYOUT_EXAMPLES).read_text())
    values["instruction"], values["examples"] = "Layouts.", values["examples"][1:2]
    (own_layout_bundle / LAYOUT_EXAMPLES).write_text(json.dumps(values))
    with Pipeline.load(own_layout_bundle) as pipeline, layout_positions(pipeline) as read:
        pipeline.generate(["A cat."], steps=1, grounder="in-context")
        assert read[0] < EXAMPLES / 2
        assert pipeline.bundle.digest != layout_pipe.bundle.digest


DAMAGED = {
    "truncated": (lambda text: text[:100], r"is not valid JSON"),
    "empty": (lambda _: "", r"is not valid JSON \(it is empty\)"),
    "another form": (lambda _: "[]", "the file has not the fields instruction and examples alone"),
    "a bad box": (lambda text: text.replace("0.72", "0.2", 1), "expected left < right"),
    "not a label": (lambda text: text.replace('"tree"', '"END"', 1), "expected lower-case words of a to z"),
    "too long": (
        lambda text: text.replace("Each caption", "Each caption " * 200, 1),
        "shorten the texts or the examples",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_examples_file_is_one_sentence(
    damage: str, own_layout_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, sentence = DAMAGED[damage]
    path = own_layout_bundle / LAYOUT_EXAMPLES
    path.write_text(change(path.read_text()))
    assert (
        main(["generate", "--bundle", str(own_layout_bundle), "--text", "A cat.", "--out", str(tmp_path / "x.png")])
        == 2
    )
    said = capsys.readouterr().err
    assert re.search(sentence, said) and said.count("\n") == 1 and "Traceback" not in said


def test_a_missing_examples_file_and_altered_masks_are_refused(own_layout_bundle: Path) -> None:
    """Masks may not be edited: they are held to the manifest's hash, as all files but the examples are."""
    masks = own_layout_bundle / LAYOUT_MASKS
    data = bytearray(masks.read_bytes())
    data[len(data) // 2] ^= 1
    masks.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=rf"{LAYOUT_MASKS} is altered"):
        Bundle.open(own_layout_bundle)
    (own_layout_bundle / LAYOUT_EXAMPLES).unlink()
    with pytest.raises(BundleError, match=rf"{LAYOUT_EXAMPLES} is missing"):
        Bundle.open(own_layout_bundle)


@pytest.mark.parametrize("wish", ["noise", "<|end|>", "letters", "nothing"])
def test_no_text_outside_the_layouts_comes_out(layout_pipe: Pipeline, wish: str) -> None:
    """Whatever the logits are. Without the masks the known mistake comes out: what the model likes best."""
    prompts, rng = layout_pipe.prompts, np.random.default_rng(3)
    vocabulary = layout_pipe.bundle.manifest.dimensions.vocabulary
    favourite = {"<|end|>": prompts.tokenizer.token_to_id("<|end|>"), "letters": prompts.spell_out("z")[0]}

    def logits() -> np.ndarray:
        found = rng.normal(0, 5, vocabulary).astype(np.float32) if wish == "noise" else np.zeros(vocabulary, np.float32)
        if wish in favourite:
            found[favourite[wish]] = 1e4
        return found

    nothing = KvCache.empty(layout_pipe.bundle.manifest.dimensions)
    for lines in (1, 2, 5):
        start = LlmStep(logits(), np.zeros((1, 1, 16), np.float32), nothing)
        masks = Masks.load(layout_pipe.bundle)
        if wish in favourite:
            assert int(start.logits.argmax()) == favourite[wish]
        written = write_layout(
            start, lines, masks, prompts.spelled, lambda _, state: LlmStep(logits(), state.features, nothing)
        )
        *found, last = written.text.split("\n")
        assert last == "END" and len(found) <= lines
        for line in found:
            match = re.fullmatch(r"(cat|dog|sailboat|tree): \[(\d\.\d\d), (\d\.\d\d), (\d\.\d\d), (\d\.\d\d)\]", line)
            assert match, line
            x1, y1, x2, y2 = (round(100 * float(v)) for v in match.groups()[1:])
            assert 0 <= x1 <= x2 - 4 <= 96 and 0 <= y1 <= y2 - 4 <= 96
