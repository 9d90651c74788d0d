"""Chats that are gone back in, forked, waited for, saved and dropped from memory: the same pictures, bit for bit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgcc_runtime import (
    Cancel,
    CancelledError,
    ClosedError,
    ContextLimitError,
    ImageReady,
    InputError,
    LayoutError,
    Overflow,
    Pipeline,
    Reply,
    Result,
)
from mgcc_runtime.conversation.chat import UNDO_DEPTH, Chat
from mgcc_runtime.reading import read_json
from tests.oddities import BY_NAME, Oddity, check_reader
from tests.runtime.conversation.test_chat import filling
from tests.runtime.golden_data import gradient
from tests.runtime.test_cancelling import each_call
from tests.runtime.test_streams import drawn_in_a_thread

READING = {"vision_encoder", "llm", "llm_decode", "grounder", "refiner"}
TURNS: tuple[tuple[Any, ...], ...] = (("A cat.",), (gradient(9, 7), "It sits."), ("The cat goes.",))


def pixels(result: Result) -> bytes:
    return np.asarray(result.image).tobytes()


@pytest.fixture(scope="module", params=["pipe", "paper_pipe"])
def loaded(request: pytest.FixtureRequest) -> Pipeline:
    found: Pipeline = request.getfixturevalue(request.param)
    return found


def told(pipe: Pipeline, turns: int = len(TURNS)) -> tuple[Chat, list[Result]]:
    chat = pipe.chat()
    return chat, [chat.send(*turn, seed=number, words=3, steps=4) for number, turn in enumerate(TURNS[:turns])]


def half(pipe: Pipeline) -> list[dict[str, object]]:
    side = pipe.bundle.manifest.dimensions.image_px
    return [{"label": "cat", "xyxy": [0, 0, side / 2, side / 3 + 0.123]}]


def test_undo_takes_back_turns_and_redrawings(loaded: Pipeline) -> None:
    chat, results = told(loaded)
    redrawn = chat.redraw(seed=77)
    assert pixels(redrawn) != pixels(results[2])
    assert pixels(chat.redraw()) == pixels(redrawn), "as it was drawn last"
    for _ in range(2):
        chat.undo()
    assert pixels(chat.redraw()) == pixels(results[2])
    for _ in range(2):
        chat.undo()
    assert chat.turns == TURNS[:2]
    assert pixels(chat.send(*TURNS[2], seed=2, words=3, steps=4)) == pixels(results[2])
    for _ in range(3):
        chat.undo()
    assert chat.turns == ()
    with pytest.raises(InputError, match="the chat has no turn to take back"):
        chat.undo()


def test_one_step_back_reads_nothing_again(loaded: Pipeline) -> None:
    chat, _ = told(loaded)
    with each_call(loaded.stages, lambda _: None) as before:
        chat.undo()
        chat.redraw(0)
        chat.redraw(1)
    assert READING.isdisjoint(before)


def test_more_is_taken_back_than_is_kept_as_it_was(pipe: Pipeline) -> None:
    chat = pipe.chat()
    results = [chat.send("A cat.", seed=0, steps=1), chat.send("It sits.", seed=1, steps=1)]
    for seed in range(UNDO_DEPTH):
        chat.redraw(seed=seed)
    for _ in range(UNDO_DEPTH + 1):
        chat.undo()
    assert chat.turns == (("A cat.",),)
    assert pixels(chat.send("It sits.", seed=1, steps=1)) == pixels(results[1])


def test_a_fork_goes_its_own_way(loaded: Pipeline) -> None:
    chat, results = told(loaded, 2)
    other = chat.fork()
    chat.send("A dog.", steps=4)
    assert other.turns == TURNS[:2]
    expected = told(loaded)[1][2]
    assert pixels(other.send(*TURNS[2], seed=2, words=3, steps=4)) == pixels(expected)
    assert chat.turns == (*TURNS[:2], ("A dog.",))
    for _ in range(2):
        other.undo()
    assert other.turns == TURNS[:1]
    assert pixels(chat.redraw(1)) == pixels(results[1])


def test_the_second_of_two_turns_waits_and_goes_on_from_the_first(pipe: Pipeline) -> None:
    chat, slow = pipe.chat(), threading.Event()
    first, second = chat.stream("A cat.", steps=4), chat.stream("It sits.", seed=1, steps=4)
    next(first)
    with each_call(pipe.stages, lambda _: None) as calls:
        thread, found = drawn_in_a_thread(second)
        slow.wait(0.3)
        assert (calls, found) == ([], []), "it computes nothing for nothing"
        *_, last = first
        assert isinstance(last, ImageReady)
        thread.join(30)
    assert chat.turns == (("A cat.",), ("It sits.",))
    assert isinstance(found[-1], ImageReady)
    expected = pipe.chat()
    expected.send("A cat.", steps=4)
    assert pixels(found[-1].result) == pixels(expected.send("It sits.", seed=1, steps=4))


def test_whoever_waits_can_be_cancelled(pipe: Pipeline) -> None:
    chat, cancel = pipe.chat(), Cancel()
    first, second = chat.stream("A cat."), chat.stream("It sits.", cancel=cancel)
    next(first)
    thread, found = drawn_in_a_thread(second)
    time.sleep(0.1)
    cancel.cancel()
    thread.join(30)  # the first turn stands still meanwhile, so nothing but the cancel can end the second
    assert not thread.is_alive()
    assert [type(event) for event in found] == [CancelledError]
    first.close()
    chat.send("A dog.", steps=1)
    assert chat.turns == (("A dog.",),)


@pytest.mark.parametrize("call", [lambda c: c.send("A dog."), lambda c: c.undo(), lambda c: c.redraw()])
def test_a_thread_does_not_wait_for_itself(pipe: Pipeline, call: Callable[[Chat], object]) -> None:
    chat = pipe.chat()
    chat.send("A cat.", steps=1)
    stream = chat.stream("It sits.", steps=2)
    next(stream)
    with pytest.raises(InputError, match="a turn of this chat is under way in this thread, expected one at a time"):
        call(chat)
    *_, last = stream
    assert isinstance(last, ImageReady)
    assert chat.turns == (("A cat.",), ("It sits.",))
    call(chat)


def test_a_dropped_stream_holds_up_nobody(pipe: Pipeline) -> None:
    chat = pipe.chat()
    next(chat.stream("A cat."))
    assert chat.send("A dog.", steps=1).image
    assert chat.turns == (("A dog.",),)


def test_a_turn_that_waited_may_no_longer_fit(pipe: Pipeline) -> None:
    chat, long = pipe.chat(), filling(pipe, 0.55)
    first, second = chat.stream(long, steps=1), chat.stream(long, steps=1)
    list(first)
    with pytest.raises(ContextLimitError):
        list(second)
    assert chat.turns == ((long,),)


def test_a_saved_chat_goes_on_as_it_would_have(loaded: Pipeline, tmp_path: Path) -> None:
    chat, results = told(loaded)
    moved = chat.redraw(1, boxes=half(loaded), seed=9)
    again = chat.redraw(1, boxes=[*moved.boxes], steps=4)
    chat.save(tmp_path / "chat.json")
    resumed = loaded.resume(tmp_path / "chat.json")
    assert [turn[-1] for turn in resumed.turns] == [turn[-1] for turn in TURNS]
    drawn = [resumed.redraw(number) for number in range(3)]
    assert [pixels(result) for result in drawn] == [pixels(results[0]), pixels(again), pixels(results[2])]
    assert [result.text_tokens for result in drawn] == [result.text_tokens for result in results]
    assert [box.id for result in drawn for box in result.boxes] == [
        box.id for result in (results[0], again, results[2]) for box in result.boxes
    ]
    one, other = (c.send("It sleeps.", seed=4, words=3, steps=4) for c in (chat, resumed))
    assert (pixels(one), one.text_tokens) == (pixels(other), other.text_tokens)
    resumed.save(tmp_path / "again.json")
    chat.save(tmp_path / "chat.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "chat.json").read_bytes()
    for _ in range(7):
        resumed.undo()
    assert resumed.turns == ()


def test_a_chat_that_has_forgotten_turns(pipe: Pipeline, tmp_path: Path) -> None:
    chat, sent, results = pipe.chat(Overflow.DROP_OLDEST), 0, []
    while len(chat.turns) == sent:  # until some are forgotten
        results.append(chat.send(filling(pipe, 0.15, sent), seed=sent, steps=1))
        sent += 1
    kept = len(chat.turns)
    assert kept > 1
    chat.save(tmp_path / "chat.json")
    resumed = pipe.resume(tmp_path / "chat.json")
    assert pixels(resumed.redraw()) == pixels(results[-1])
    for number in range(kept - 1):
        assert pixels(chat.redraw(number)) == pixels(results[number - kept]), "its scene is still kept"
        with pytest.raises(InputError, match=r"turn \d was drawn after turns that are forgotten since"):
            resumed.redraw(number)
    one, other = (c.send(filling(pipe, 0.15, sent), steps=1) for c in (chat, resumed))
    assert pixels(one) == pixels(other)
    assert len(resumed.turns) == len(chat.turns) == kept + 1


def test_a_turn_in_words_alone(pipe: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgcc_runtime.text.deciding.wants_picture", lambda logits, image_ids: False)
    chat = pipe.chat()
    assert isinstance(chat.answer("A cat.", words=2), Reply)
    chat.save(tmp_path / "chat.json")
    resumed = pipe.resume(tmp_path / "chat.json")
    for one in (chat, resumed):
        with pytest.raises(InputError, match="turn 1 was answered in words alone"):
            one.redraw()
    assert pixels(chat.send("It sits.", steps=1)) == pixels(resumed.send("It sits.", steps=1))


@pytest.mark.parametrize("chat_bytes", [0, 100_000])
def test_what_is_dropped_is_read_again(paper_tiny_bundle: Path, paper_pipe: Pipeline, chat_bytes: int) -> None:
    _, expected = told(paper_pipe)
    with Pipeline.load(paper_tiny_bundle, chat_bytes=chat_bytes) as pipeline:
        chats = [pipeline.chat() for _ in range(3)]
        for number, turn in enumerate(TURNS):  # in turns, so that each is dropped before it goes on
            for chat in chats:
                result = chat.send(*turn, seed=number, words=3, steps=4)
                assert pixels(result) == pixels(expected[number])
                assert pipeline.shelf.used_bytes <= chat_bytes
        for number in range(len(TURNS)):
            for chat in chats:
                assert pixels(chat.redraw(number)) == pixels(expected[number])


def test_memory_is_given_back_with_the_chat(bundle_path: Path) -> None:
    with Pipeline.load(bundle_path) as pipeline:
        chat = pipeline.chat()
        used = []
        for _ in range(6):
            chat.send("A cat.", steps=1)
            used.append(pipeline.shelf.used_bytes)
        assert used[0] > 0
        del chat
        assert pipeline.shelf.used_bytes == 0


@pytest.mark.parametrize("turn", [3, -4, 1.0, "0", None, True])
def test_a_turn_that_there_is_not(pipe: Pipeline, turn: Any) -> None:
    chat, _ = told(pipe)
    with pytest.raises(InputError, match=r"^turn is .*, but the chat has 3; choose one by its index in `turns`$"):
        chat.redraw(turn)


def test_a_refused_redrawing_changes_nothing(pipe: Pipeline) -> None:
    chat, results = told(pipe, 1)
    with pytest.raises(LayoutError):
        chat.redraw(boxes=[{"label": "qqqq", "xyxy": [0, 0, 4, 4]}])
    stream = chat.stream_redraw(seed=5)
    next(stream)
    stream.close()
    assert pixels(chat.redraw()) == pixels(results[0])


def saved(pipe: Pipeline, path: Path, change: Callable[[Any], object]) -> Path:
    chat, _ = told(pipe, 2)
    chat.save(path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return path


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "another bundle": (lambda v: v.update(bundle="00"), "is of the bundle 00..., this one is"),
    "a later schema": (lambda v: v.update(schema=2), "has schema 2, expected 1; upgrade mgcc-edge"),
    "no turns": (lambda v: v.pop("turns"), "is not of the expected form"),
    "a strange part": (lambda v: v["turns"][0]["parts"].append({"video": "x"}), "is not of the expected form"),
    "no base64": (lambda v: v["turns"][1]["parts"].__setitem__(0, {"image": "??"}), "is not of the expected form"),
    "no picture": (lambda v: v["turns"][1]["parts"].__setitem__(0, {"image": "aaaa"}), "is not of the expected form"),
    "an empty text": (lambda v: v["turns"][0]["parts"].__setitem__(0, {"text": ""}), "is an empty text"),
    "a seed": (lambda v: v["turns"][0]["picture"]["first"].update(seed=-1), "seed is -1"),
    "steps": (lambda v: v["turns"][0]["picture"]["shown"].update(steps=999), "steps is 999"),
    "a box": (lambda v: v["turns"][0]["picture"]["shown"].update(boxes=[{"label": "q"}]), "box 1"),
    "reading": (lambda v: v.update(whole=3), "is not of the expected form"),
    "overflow": (lambda v: v.update(overflow="burst"), "overflow is 'burst'"),
    "more than fits": (lambda v: v["turns"].extend(v["turns"] * 60), "more than the context of"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_cannot_be_gone_on_with_is_refused(pipe: Pipeline, tmp_path: Path, name: str) -> None:
    change, message = CHANGES[name]
    path = saved(pipe, tmp_path / "chat.json", change)
    with pytest.raises(InputError) as error:
        pipe.resume(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_closed_pipeline_resumes_nothing(bundle_path: Path, tmp_path: Path) -> None:
    with Pipeline.load(bundle_path) as pipeline:
        chat = pipeline.chat()
        chat.save(tmp_path / "chat.json")
        assert pipeline.resume(tmp_path / "chat.json").turns == ()
        assert read_json(tmp_path / "chat.json", "chat")["turns"] == []
    with pytest.raises(ClosedError):
        pipeline.resume(tmp_path / "chat.json")
    with pytest.raises(ClosedError):
        chat.send("A cat.")


@BY_NAME
def test_files_of_odd_bytes(pipe: Pipeline, tmp_path: Path, oddity: Oddity) -> None:
    path = tmp_path / "chat.json"
    pipe.chat().save(path)
    check_reader(oddity, path, read_json(path, "chat"), lambda: pipe.resume(path).turns)
