"""A request that is no longer wanted ends within one call of a stage, whichever stage that is and whoever says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

from mgcc_runtime import Cancel, CancelledError, ImageReady, OptionError, Pipeline
from mgcc_runtime.cancelling import stopped_by
from mgcc_runtime.contract import stage
from mgcc_runtime.engines import AtOnce, EngineOptions, Feed, Outputs, Session, open_session
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.measure.similarity import psnr_db
from mgcc_runtime.prompt import Part
from mgcc_runtime.stages import Stages
from mgcc_runtime.stopwatch import Stopwatch
from mgcc_runtime.text.pieces import read_in_pieces, see_in_pieces
from tests.runtime.cancel_latency import LATENCY_MS, latencies_ms, lateness
from tests.runtime.golden_data import example_inputs, gradient
from tests.runtime.in_place_llm import make_in_place
from tests.runtime.tiny_bundle import DIMENSIONS, make_stage
from tests.tolerances import FP32_IMAGE_PSNR_DB, REORDERED_FP32

#: Two pictures, and a text of three pieces.
PARTS: list[Part] = [gradient(9, 7), "A cat sits on a mat. " * 24, gradient(8, 8), "It goes."]
#: Each call of a stage takes as long as the larger ones of a real bundle; a request has some sixty of them.
CALL_S = 0.02
ALL_AT_ONCE = AtOnce(positions=10**6, images=10**6)
#: The prompt fits into the tiny context, so its pieces are smaller than an engine's own.
IN_PIECES = AtOnce(positions=64, images=1)


@pytest.fixture(autouse=True)
def _in_pieces(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llm", "vision_encoder"):
        monkeypatch.setattr(pipe.stages.sessions[name], "at_once", IN_PIECES)


@contextmanager
def each_call(stages: Stages, within: Callable[[str], None]) -> Iterator[list[str]]:
    """Call `within`, with the stage's name, in each call of a stage; gives the names of all calls that began."""
    began: list[str] = []

    def around(name: str, run: Callable[..., Outputs]) -> Callable[..., Outputs]:
        def called(feeds: Mapping[str, Feed], keep: Collection[str] = ()) -> Outputs:
            began.append(name)
            within(name)
            return run(feeds, keep)

        return called

    with pytest.MonkeyPatch.context() as patch:
        for name, session in stages.sessions.items():
            patch.setattr(session, "run", around(name, session.run))
        yield began


def calls_of_a_request(pipe: Pipeline) -> list[str]:
    with each_call(pipe.stages, lambda _: None) as calls:
        pipe.generate(PARTS, words=6)
    return calls


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("way", ["cancel", "close"])
def test_no_stage_begins_after_a_cancel(pipe: Pipeline, way: str, *, chat: bool) -> None:
    """Cancelled within the first, a middle or the last call of every stage."""
    calls = calls_of_a_request(pipe)
    assert {"vision_encoder", "llm", "grounder", "refiner", "unet", "solver", "vae_decoder"} <= {*calls}
    for name in sorted({*calls}):
        for number in sorted({1, calls.count(name) // 2 + 1, calls.count(name)}):
            cancelled_in(pipe, way, name, number, chat=chat)


def cancelled_in(pipe: Pipeline, way: str, name: str, number: int, *, chat: bool) -> None:
    dialogue, cancel = pipe.chat(), Cancel()
    if chat:
        stream = dialogue.stream(*PARTS, words=6, cancel=cancel)
    else:
        stream = pipe.stream(PARTS, words=6, cancel=cancel)
    seen: list[str] = []

    def end(called: str) -> None:
        seen.append(called)
        if called == name and seen.count(name) == number:
            (cancel.cancel if way == "cancel" else stream.close)()

    with each_call(pipe.stages, end) as began:
        if way == "cancel":
            with pytest.raises(CancelledError, match="the request was cancelled before it was done"):
                list(stream)
        else:
            assert not any(isinstance(event, ImageReady) for event in stream)
    assert (began.count(name), began[-1]) == (number, name), "another call began"
    assert list(stream) == []
    assert dialogue.turns == ()


def test_one_cancel_ends_several_requests_and_later_ones(pipe: Pipeline) -> None:
    cancel = Cancel()
    first, second, other = (pipe.stream(["A cat."], cancel=given) for given in (cancel, cancel, Cancel()))
    next(first)
    next(second)
    first.close()
    next(second)  # the first one's own end is not the second's
    cancel.cancel()
    for ended in (lambda: next(second), lambda: pipe.generate(["A cat."], cancel=cancel)):
        with pytest.raises(CancelledError):
            ended()
    assert isinstance(list(other)[-1], ImageReady)


def test_a_handler_of_signals_may_cancel_while_its_thread_is_cancelling() -> None:
    """Where it strikes within `cancel` itself: one that could not be entered again would wait for ever."""
    cancel, stopped = Cancel(), []

    def stop() -> None:
        stopped.append(len(stopped))
        if len(stopped) == 1:
            cancel.cancel()

    def cancelling() -> None:
        with cancel.stops(stop):
            cancel.cancel()

    thread = threading.Thread(target=cancelling, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive() and stopped == [0, 1]


def test_no_picture_of_a_prompt_is_opened_after_a_cancel(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, opened = Cancel(), []

    def opening(source: object) -> object:
        opened.append(source)
        cancel.cancel()
        return gradient(8, 8)

    monkeypatch.setattr("mgcc_runtime.prompt.load_image", opening)
    with pytest.raises(CancelledError):
        pipe.stream(PARTS, cancel=cancel)
    assert len(opened) == 1


@pytest.mark.parametrize("given", [True, "cancel", threading.Event()])
def test_anything_else_is_refused(pipe: Pipeline, given: object) -> None:
    with pytest.raises(OptionError, match=r"^cancel is .*, expected a Cancel; make one with"):
        pipe.stream(["A cat."], cancel=given)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="expected a Cancel"):
        pipe.chat().stream("A cat.", cancel=given)  # type: ignore[typeddict-item]


def test_cancel_at_random_moments_bites_within_150_ms(pipe: Pipeline) -> None:
    with each_call(pipe.stages, lambda _: time.sleep(CALL_S)):
        assert max(latencies_ms(pipe, PARTS, words=6, rounds=12)) <= LATENCY_MS


def test_pieces_are_read_as_one_prompt(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = pipe.prompts.build(PARTS)
    vision = pipe.bundle.manifest.vision
    embeddings = pipe.prompts.embed_prompt(prompt, see_in_pieces(pipe.stages, prompt.images, vision, Stopwatch()))
    empty = KvCache.empty(pipe.bundle.manifest.dimensions)
    most = pipe.stages.positions_at_once
    assert prompt.length > 2 * most
    pieces, whole = read_in_pieces(pipe.stages, embeddings, empty, Stopwatch()), pipe.stages.read(embeddings, empty)
    np.testing.assert_allclose(pieces.logits, whole.logits, atol=REORDERED_FP32)
    np.testing.assert_allclose(pieces.features, whole.features, atol=REORDERED_FP32)
    assert pieces.cache.length == whole.cache.length == prompt.length
    forgetful = pipe.stages.read(embeddings[:, -most:], empty)
    assert np.abs(forgetful.features[0, -1] - whole.features[0, -1]).max() > 100 * REORDERED_FP32
    drawn = pipe.generate(PARTS, words=6)
    for name in ("llm", "vision_encoder"):
        monkeypatch.setattr(pipe.stages.sessions[name], "at_once", ALL_AT_ONCE)
    at_once = pipe.generate(PARTS, words=6)
    assert psnr_db(np.asarray(drawn.image), np.asarray(at_once.image)) >= FP32_IMAGE_PSNR_DB
    assert drawn.text_tokens == at_once.text_tokens


@pytest.mark.parametrize("way", ["stream", "chat", "redraw"])
def test_an_engine_hears_of_a_cancel_in_every_call(pipe: Pipeline, way: str) -> None:
    """Whatever it could end half-way, `stopped_by` tells it."""
    scene, calls = pipe.generate(PARTS, words=6).scene, calls_of_a_request(pipe)
    for name in {"unet", "solver", "vae_decoder"} if way == "redraw" else {*calls}:
        cancel, told = Cancel(), []

        def end(called: str, name: str = name, cancel: Cancel = cancel, told: list[str] = told) -> None:
            with stopped_by(lambda: told.append(called)):
                if called == name:
                    cancel.cancel()

        ways: dict[str, Callable[[], object]] = {
            "stream": lambda cancel=cancel: pipe.generate(PARTS, words=6, cancel=cancel),
            "chat": lambda cancel=cancel: pipe.chat().send(*PARTS, words=6, cancel=cancel),
            "redraw": lambda cancel=cancel: pipe.redraw(scene, cancel=cancel),
        }
        with each_call(pipe.stages, end), pytest.raises(CancelledError):
            ways[way]()
        assert told == [name]


#: Stage, a graph of its own, and the input and output that the work is put between.
LONG_CALLS: dict[str, tuple[str, str, Callable[[], onnx.ModelProto] | None, str, str]] = {
    "onnxruntime": ("onnxruntime", "vae_decoder", None, "latents", "image"),
    "onnxruntime-in-place": ("onnxruntime", "llm", make_in_place, "inputs_embeds", "logits"),
    "openvino": ("openvino", "vae_decoder", None, "latents", "image"),
}


def lengthened(model: onnx.ModelProto, start: str, end: str) -> onnx.ModelProto:
    """The model with products of a second or so between an input and an output, which change nothing."""
    side, count, nodes = 400, 300, model.graph.node
    weights = np.random.default_rng(0).normal(0, side**-0.5, (side, side)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "long.weights"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((), np.float32), "long.zero"))
    for node in nodes:
        node.output[:] = ["long.end" if name == end else name for name in node.output]
    nodes.append(onnx.helper.make_node("ReduceMean", [start], ["long.mean"], keepdims=0))
    nodes.append(onnx.helper.make_node("Add", ["long.weights", "long.mean"], ["long.0"]))
    for i in range(count):
        nodes.append(onnx.helper.make_node("MatMul", [f"long.{i}", "long.weights"], [f"long.{i + 1}"]))
    nodes.append(onnx.helper.make_node("ReduceMean", [f"long.{count}"], ["long.last"], keepdims=0))
    nodes.append(onnx.helper.make_node("Mul", ["long.last", "long.zero"], ["long.nothing"]))
    nodes.append(onnx.helper.make_node("Add", ["long.end", "long.nothing"], [end]))
    return model


def ended_after_ms(session: Session, feeds: Mapping[str, Feed], wait_s: float) -> float:
    """From a cancel, `wait_s` after a call began or before it for 0, to the call's end; less the machine's lateness."""
    cancel, ended_s = Cancel(), []

    def call() -> None:
        with pytest.raises(CancelledError), cancel.at_work():
            session.run(feeds)
        ended_s.append(time.perf_counter())

    thread = threading.Thread(target=call)
    if not wait_s:
        cancel.cancel()
    asked_s = time.perf_counter()
    thread.start()
    with lateness() as late:
        if wait_s:
            time.sleep(wait_s)
            asked_s = time.perf_counter()
            cancel.cancel()
        thread.join(60)
    return (ended_s[0] - asked_s) * 1e3 - late.worst_ms


@pytest.mark.parametrize("kind", LONG_CALLS)
def test_an_engine_ends_a_long_call_half_way(kind: str, tmp_path: Path) -> None:
    engine, name, make, start, end = LONG_CALLS[kind]
    spec = stage(DIMENSIONS, name)
    path = tmp_path / "long.onnx"
    onnx.save(lengthened(make() if make else make_stage(spec, DIMENSIONS), start, end), path)
    session, feeds = open_session(engine, path, spec, EngineOptions(threads=1)), example_inputs(spec.inputs)
    for wait_s in (0.3, 0.0):  # while it runs, and before
        assert ended_after_ms(session, feeds, wait_s) <= LATENCY_MS
    assert np.isfinite(session.run(feeds)[end]).all(), "it can be used on"
    session.close()
