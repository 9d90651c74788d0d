"""A stream is closed from wherever its user sits: the thread of a window, while another one draws."""

from __future__ import annotations

import threading

import pytest

from mgcc_runtime import Event, ImageReady, Pipeline, StepPreview, Stream
from mgcc_runtime.denoise import Latents
from mgcc_runtime.stages import Floats


def drawn_in_a_thread(stream: Stream) -> tuple[threading.Thread, list[Event | BaseException]]:
    """Another thread that takes all events; they, or the error that ends them, are in the list."""
    found: list[Event | BaseException] = []

    def take() -> None:
        try:
            found.extend(stream)
        except BaseException as error:  # noqa: BLE001
            found.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    return thread, found


@pytest.fixture
def paused(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """(set when the second step of a request is being made, what that step waits for)."""
    predict, reached, go = pipe.stages.predict, threading.Event(), threading.Event()
    steps = []

    def waiting(x: Latents, *others: object) -> Latents:
        steps.append(1)
        if len(steps) == 2:
            reached.set()
            assert go.wait(30)
        return predict(x, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(pipe.stages, "predict", waiting)
    return reached, go


@pytest.mark.parametrize("chat", [False, True])
def test_closed_by_another_thread(
    pipe: Pipeline, paused: tuple[threading.Event, threading.Event], *, chat: bool
) -> None:
    reached, go = paused
    dialogue = pipe.chat()
    stream = dialogue.stream("A cat.") if chat else pipe.stream(["A cat."])
    thread, found = drawn_in_a_thread(stream)
    assert reached.wait(30)
    stream.close()  # returns while the step goes on
    assert thread.is_alive()
    go.set()
    thread.join(30)
    assert [event.step for event in found if isinstance(event, StepPreview)] == [1], "the UNet's call was the last"
    assert not any(isinstance(event, ImageReady | BaseException) for event in found)
    with pytest.raises(StopIteration):
        next(stream)
    stream.close()
    assert dialogue.turns == ()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_turn_is_remembered_exactly_where_its_last_event_is_given(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Closed before the last call of the engine is done, neither; after it, both."""
    decode, dialogue = pipe.stages.decode, pipe.chat()

    def closing(latents: Latents) -> Floats:
        if moment == "before":
            stream.close()
        found = decode(latents)
        stream.close()
        return found

    monkeypatch.setattr(pipe.stages, "decode", closing)
    stream = dialogue.stream("A cat.")
    *_, last = stream
    assert isinstance(last, ImageReady) == (moment == "after")
    assert dialogue.turns == ((("A cat.",),) if moment == "after" else ())


def test_two_threads_share_the_events(pipe: Pipeline) -> None:
    stream = pipe.stream(["A cat."], steps=4)
    (one, first), (two, second) = drawn_in_a_thread(stream), drawn_in_a_thread(stream)
    one.join(30)
    two.join(30)
    kinds = sorted(type(event).__name__ for event in first + second)
    assert kinds == ["BoxesReady", "ImageReady"] + ["StepPreview"] * 4
