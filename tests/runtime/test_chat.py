"""A conversation gives what one request of all its parts gives, and reads nothing twice."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mgcc_runtime import Overflow, Pipeline, Reply, Result
from mgcc_runtime.cli import main
from mgcc_runtime.errors import ContextLimitError, ImageError, PromptError
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.prompt import Part
from mgcc_runtime.results import ImageReady
from mgcc_runtime.stages import Floats, LlmStep
from mgcc_runtime.verify import psnr_db
from tests.runtime.golden_data import gradient
from tests.tolerances import FP32_IMAGE_PSNR_DB

TURNS = [("A cat.",), (gradient(8, 8), "It sits."), ("The cat goes.",)]


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
    events.close()  # type: ignore[attr-defined]
    assert chat.turns == (("A cat.",),)
    expected = pipe.generate(["A cat.", "It sits."], seed=1).image
    assert psnr_db(np.asarray(chat.send("It sits.", seed=1).image), np.asarray(expected)) >= FP32_IMAGE_PSNR_DB


def test_a_full_context_is_refused_with_the_excess(pipe: Pipeline) -> None:
    chat = pipe.chat()
    long = "A cat sits on a mat. " * 4
    chat.send(long, steps=1)
    with pytest.raises(ContextLimitError, match=r"more than the context of 160"):
        chat.send(long, steps=1)
    assert chat.turns == ((long,),)
    chat.send("It goes.", steps=1)


def test_or_the_oldest_turns_are_dropped_when_asked(pipe: Pipeline) -> None:
    chat = pipe.chat(Overflow.DROP_OLDEST)
    for number in range(12):
        *_, last = chat.stream(f"A cat {number} sits on a mat.", steps=1)
    assert isinstance(last, ImageReady)
    assert 1 < len(chat.turns) < 12
    assert chat.turns[-1] == ("A cat 11 sits on a mat.",)
    parts = [part for turn in chat.turns for part in turn]
    expected = pipe.generate(parts, steps=1).image
    assert psnr_db(np.asarray(last.result.image), np.asarray(expected)) >= FP32_IMAGE_PSNR_DB
    with pytest.raises(ContextLimitError):
        chat.send("mat " * 200)


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


def test_the_command_lets_the_model_decide(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("A cat.\nShow it.\n"))
    with monkeypatch.context() as patch:
        patch.setattr("mgcc_runtime.pipeline.wants_picture", lambda logits, image_ids: False)
        command = ["chat", "--bundle", str(bundle_path), "--out", str(tmp_path / "out"), "--json", "--draw", "auto"]
        assert main(command) == 0
    turns = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [turn["images"] for turn in turns] == [[], []]
    assert not list((tmp_path / "out").iterdir())
