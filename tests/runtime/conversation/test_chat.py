"""A conversation gives what one request of all its parts gives, and reads nothing twice."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgcc_runtime import Overflow, Pipeline, Reply, Result
from mgcc_runtime.cli import main
from mgcc_runtime.conversation.chat import Chat
from mgcc_runtime.errors import ContextLimitError, ImageError, OutputError, PromptError, StageValueError
from mgcc_runtime.images import conversion
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.measure.similarity import psnr_db
from mgcc_runtime.prompt import Part
from mgcc_runtime.results import ImageReady
from mgcc_runtime.stages import Floats, LlmStep
from tests.runtime.golden_data import gradient
from tests.tolerances import FP32_IMAGE_PSNR_DB

MAT = "A cat sits on a mat. "
TURNS = [("A cat.",), (gradient(8, 8), "It sits."), ("The cat goes.",)]


def filling(pipe: Pipeline, share: float, number: int = 0) -> str:
    """A turn of this share of the context or a little more."""
    count = 1
    while pipe.prompts.draft([text := f"A cat {number:2} sits. " + MAT * count]).length < share * context_of(pipe):
        count += 1
    return text


def context_of(pipe: Pipeline) -> int:
    return pipe.bundle.manifest.dimensions.context


def test_each_turn_is_the_request_of_all_parts_so_far(pipe: Pipeline) -> None:
    chat = pipe.chat()
    parts: list[Part] = []
    for number, turn in enumerate(TURNS):
        parts += turn
        found = chat.send(*turn, seed=number, words=4)
        expected = pipe.generate(parts, seed=number, words=4)
        assert psnr_db(np.asarray(found.image), np.asarray(expected.image)) >= FP32_IMAGE_PSNR_DB
        assert found.text_tokens == expected.text_tokens
        assert [box.label for box in found.boxes] == [box.label for box in expected.boxes]
    assert chat.turns == tuple(TURNS)


def test_the_turns_before_matter(pipe: Pipeline) -> None:
    chat = pipe.chat()
    chat.send("A cat.")
    after = chat.send("It sits.").image
    assert after.tobytes() != pipe.chat().send("It sits.").image.tobytes()


def test_only_the_new_parts_are_read(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    read, lengths = pipe.stages.read, []

    def counted(embeddings: Floats, cache: KvCache) -> LlmStep:
        lengths.append(embeddings.shape[1])
        return read(embeddings, cache)

    monkeypatch.setattr(pipe.stages, "read", counted)
    chat = pipe.chat()
    per_turn = []
    for _ in range(4):
        lengths.clear()
        chat.send("A cat sits.")
        per_turn.append(sum(lengths))
    assert per_turn[1] == per_turn[2] == per_turn[3] < per_turn[0]


def test_a_refused_or_cancelled_turn_changes_nothing(pipe: Pipeline, tmp_path: Path) -> None:
    chat = pipe.chat()
    chat.send("A cat.")
    with pytest.raises(PromptError, match="the prompt is empty"):
        chat.send()
    with pytest.raises(ImageError):
        chat.send(tmp_path / "absent.png")
    events = chat.stream("A dog.", seed=1)
    next(events)
    events.close()
    assert chat.turns == (("A cat.",),)
    expected = pipe.generate(["A cat.", "It sits."], seed=1).image
    assert psnr_db(np.asarray(chat.send("It sits.", seed=1).image), np.asarray(expected)) >= FP32_IMAGE_PSNR_DB


def test_a_full_context_is_refused_with_the_excess(pipe: Pipeline) -> None:
    chat = pipe.chat()
    long = filling(pipe, 0.55)
    chat.send(long, steps=1)
    with pytest.raises(ContextLimitError, match=r"more than the context of 256"):
        chat.send(long, steps=1)
    assert chat.turns == ((long,),)
    chat.send("It goes.", steps=1)


def test_or_the_oldest_turns_are_dropped_when_asked(pipe: Pipeline) -> None:
    chat = pipe.chat(Overflow.DROP_OLDEST)
    for number in range(12):
        *_, last = chat.stream(filling(pipe, 0.15, number), steps=1)
    assert isinstance(last, ImageReady)
    assert 1 < len(chat.turns) < 12
    assert chat.turns[-1] == (filling(pipe, 0.15, 11),)
    parts = [part for turn in chat.turns for part in turn]
    expected = pipe.generate(parts, steps=1).image
    assert psnr_db(np.asarray(last.result.image), np.asarray(expected)) >= FP32_IMAGE_PSNR_DB
    with pytest.raises(ContextLimitError):
        chat.send(filling(pipe, 1.0))


def test_most_turns_of_a_long_session_read_their_own_parts_alone(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full reading makes room for several turns. The first turn is one; dropping the least made it 35."""
    read, whole = pipe.stages.read, []

    def counted(embeddings: Floats, cache: KvCache) -> LlmStep:
        whole.append(not cache.length)
        return read(embeddings, cache)

    monkeypatch.setattr(pipe.stages, "read", counted)
    chat, half = pipe.chat(Overflow.DROP_OLDEST), context_of(pipe) // 2
    turn = pipe.prompts.draft([filling(pipe, 0.15)]).length + pipe.prompts.separator.length
    for number in range(40):
        before = len(chat.turns)
        chat.send(filling(pipe, 0.15, number), steps=1)
        if len(chat.turns) <= before:
            held = pipe.prompts.build([part for turn in chat.turns for part in turn]).length
            assert half - 2 * turn < held <= half
    assert sum(whole) == 10


def test_a_turn_of_more_than_half_the_context_is_kept_alone(pipe: Pipeline) -> None:
    chat, long = pipe.chat(Overflow.DROP_OLDEST), filling(pipe, 0.55)
    for turn in ("A dog.", long, long):
        chat.send(turn, steps=1)
    assert chat.turns == ((long,),)


def test_files_of_turns_are_read_once(pipe: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full reading knows the pictures as they were, though one file is gone by then and one holds another."""
    gone, other = tmp_path / "gone.png", tmp_path / "other.png"
    gradient(9, 7).save(gone)
    gradient(8, 8).rotate(90).save(other)
    told: tuple[str, str] = ("They sit.", filling(pipe, 0.25))
    open_image, opened = Image.open, []

    def counted(path: Path) -> Image.Image:
        opened.append(path)
        return open_image(path)

    monkeypatch.setattr(Image, "open", counted)
    chat = pipe.chat(Overflow.DROP_OLDEST)
    chat.send(filling(pipe, 0.75), steps=1)
    chat.send(gone, other, told[0], steps=1)
    gone.unlink()
    gradient(8, 8).save(other)
    last = chat.send(told[1], steps=1)
    assert chat.turns == ((gone, other, told[0]), (told[1],))
    drawn = pipe.generate([gradient(9, 7), gradient(8, 8).rotate(90), *told], steps=1).image
    assert psnr_db(np.asarray(last.image), np.asarray(drawn)) >= FP32_IMAGE_PSNR_DB
    assert opened == [gone, other]


def test_a_turn_goes_on_from_what_was_remembered_before_its_first_event(pipe: Pipeline) -> None:
    chat = pipe.chat()
    chat.send("A cat.", steps=1)
    later = chat.stream("A dog.", steps=1)
    chat.send("A tree.", steps=1)
    *_, last = later
    assert isinstance(last, ImageReady)
    assert chat.turns == (("A cat.",), ("A tree.",), ("A dog.",))
    expected = pipe.generate(["A cat.", "A tree.", "A dog."], steps=1).image
    assert psnr_db(np.asarray(last.result.image), np.asarray(expected)) >= FP32_IMAGE_PSNR_DB


def test_the_model_decides_whether_to_draw(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways are taken by the logits of [IMG1] alone; a turn in words is remembered all the same."""
    read, first = pipe.stages.read, pipe.bundle.manifest.tokens.image[0]
    raised = 0.0

    def biased(embeddings: Floats, cache: KvCache) -> LlmStep:
        step = read(embeddings, cache)
        logits = step.logits.copy()
        logits[first] = raised
        return LlmStep(logits, step.features, step.cache)

    monkeypatch.setattr(pipe.stages, "read", biased)
    chat = pipe.chat()
    raised = -1e4
    reply = chat.answer("A cat.", words=4)
    assert isinstance(reply, Reply)
    assert reply.text == pipe.generate(["A cat."], words=4).text
    assert "unet" not in reply.timings
    raised = 1e4
    drawn = chat.answer("Show it.", words=4)
    assert isinstance(drawn, Result)
    assert chat.turns == (("A cat.",), ("Show it.",))
    expected = pipe.generate(["A cat.", "Show it."]).image
    assert psnr_db(np.asarray(drawn.image), np.asarray(expected)) >= FP32_IMAGE_PSNR_DB


def test_the_command_draws_every_line(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gradient(9, 7).save(tmp_path / "p.png")
    lines = f"A cat.\n\n/image {tmp_path / 'p.png'}\nIt sits.\n/image {tmp_path / 'absent.png'}\nWhat?\nIt goes.\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    out = tmp_path / "out"
    code = main(["chat", "--bundle", str(bundle_path), "--out", str(out), "--json", "--words", "3"])
    captured = capsys.readouterr()
    turns = [json.loads(line) for line in captured.out.splitlines()]
    assert [turn["images"][0]["path"] for turn in turns] == [str(out / f"turn-{i}.png") for i in (1, 2, 3)]
    assert sorted(path.name for path in out.iterdir()) == ["turn-1.png", "turn-2.png", "turn-3.png"]
    assert "absent.png" in captured.err
    assert code == 2, "one turn could not be used"


def test_the_command_goes_on_after_a_turn_that_fails(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed engine's turn is forgotten; one whose picture cannot be written is remembered. Both end in 1."""
    send, save, seen = Chat.send, conversion.save_png, []

    def failing(chat: Chat, *parts: Part, **options: object) -> Result:
        if parts[-1] == "Fail.":
            raise StageValueError("stage unet gave NaN")
        seen.append(chat.turns)
        return send(chat, *parts, **options)  # type: ignore[arg-type]

    def full(image: Image.Image, path: Path) -> None:
        if path.name == "turn-2.png":
            raise OutputError(f"{path} cannot be written")
        save(image, path)

    monkeypatch.setattr(Chat, "send", failing)
    monkeypatch.setattr(conversion, "save_png", full)
    absent = tmp_path / "absent.png"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"A.\n/image {absent}\nFail.\nB.\nC.\n/image {absent}\nD.\n"))
    out = tmp_path / "out"
    code = main(["chat", "--bundle", str(bundle_path), "--out", str(out), "--json", "--words", "1"])
    assert [line.split()[:2] for line in capsys.readouterr().err.splitlines()] == [
        ["mgcc:", "stage"], ["mgcc:", str(out / "turn-2.png")], ["mgcc:", "image"],
    ]  # fmt: skip
    assert seen[:3] == [(), (("A.",),), (("A.",), ("B.",))]
    assert sorted(path.name for path in out.iterdir()) == ["turn-1.png", "turn-3.png"]
    assert code == 1, "a failed turn weighs more than one that could not be used"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("A cat.\n/image p.png\n", "1 image was given after the last text and not read, expected a text after p.png"),
        ("A cat.\n/image q.png\n/image p.png", "2 images were given after the last text"),
        ("/image\nA cat.\n", "/image has no file, expected `/image FILE`"),
    ],
)
def test_the_command_says_which_images_it_leaves_out(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    lines: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    code = main(["chat", "--bundle", str(bundle_path), "--out", str(tmp_path), "--json", "--words", "1"])
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert len(captured.out.splitlines()) == 1
    assert code == 2


def test_the_command_says_that_its_input_is_no_text(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"A caf\xe9.\n"), "utf-8"))
    assert main(["chat", "--bundle", str(bundle_path), "--out", str(tmp_path)]) == 2
    assert "standard input is not utf-8 text" in capsys.readouterr().err


def test_the_command_lets_the_model_decide(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("A cat.\nShow it.\n"))
    with monkeypatch.context() as patch:
        patch.setattr("mgcc_runtime.text.deciding.wants_picture", lambda logits, image_ids: False)
        command = ["chat", "--bundle", str(bundle_path), "--out", str(tmp_path / "out"), "--json", "--draw", "auto"]
        assert main(command) == 0
    turns = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [turn["images"] for turn in turns] == [[], []]
    assert not list((tmp_path / "out").iterdir())
