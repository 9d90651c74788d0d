"""Close, fork and exit at any moment, on each engine: ClosedError or an end, never a hang or an abort."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mgcc_runtime import ClosedError, EngineError, MgccError, Pipeline, Stream
from mgcc_runtime.engines import EngineOptions, Session, open_session
from mgcc_runtime.lifetime import Lifetime
from tests.runtime import ending_process, interrupted_process
from tests.runtime.engine_makers import engines_of, open_it, spec_of, write_onnx, write_plan
from tests.runtime.golden_data import example_inputs
from tests.runtime.host_tensorrt import host_gpu_with
from tests.runtime.in_place_llm import make_in_place
from tests.runtime.releases import TENSORRT, TENSORRT_RTX, Release

PATIENCE_S = 60
#: Engine and stage; the language model in place is ONNX Runtime's second form.
STAGES = {
    "onnxruntime": ("onnxruntime", "unet"),
    "onnxruntime-in-place": ("onnxruntime", "llm"),
    "openvino": ("openvino", "unet"),
    "host": ("host", "solver"),
}
#: One of TensorRT and one of TensorRT-RTX, on a GPU of the host's memory.
GPU_RELEASES = (TENSORRT[0], TENSORRT_RTX[0])
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(params=[*STAGES, *(pytest.param(release, id=str(release)) for release in GPU_RELEASES)])
def session(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    if isinstance(request.param, Release):
        with host_gpu_with(request.param, monkeypatch, tmp_path):
            opened = open_it(write_plan(tmp_path, "unet", request.param), request.param, "unet")
            yield opened
            opened.close()
        return
    engine, stage = STAGES[request.param]
    model = make_in_place() if request.param == "onnxruntime-in-place" else None
    opened = open_session(engine, write_onnx(tmp_path, stage, model), spec_of(stage), EngineOptions(threads=2))
    yield opened
    opened.close()


def in_threads(work: Callable[[], object], count: int) -> tuple[list[threading.Thread], list[BaseException]]:
    """Threads that repeat `work` until it raises; returns once each has worked, with a list of what they raise."""
    raised: list[BaseException] = []
    started = threading.Barrier(count + 1)

    def repeat() -> None:
        try:
            work()
            started.wait(PATIENCE_S)
            while True:
                work()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    threads = [threading.Thread(target=repeat, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    started.wait(PATIENCE_S)
    return threads, raised


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def in_child(check: Callable[[], None]) -> int:
    """The exit code of a forked child that makes this check: 0 where it holds. Fails if the child hangs."""
    if (child := os.fork()) == 0:
        try:
            check()
        except BaseException:  # noqa: BLE001 - the child must not go on as a second pytest
            os._exit(1)
        os._exit(0)
    deadline_s = time.monotonic() + PATIENCE_S
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline_s:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the forked child hangs")
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])


def test_closed_while_others_run(session: Session) -> None:
    feeds = example_inputs(session.spec.inputs)
    threads, raised = in_threads(lambda: session.run(feeds), 3)
    session.close()
    join(threads)
    assert [type(error) for error in raised] == [ClosedError] * 3, raised
    session.close()


def test_closed_by_several_at_once(session: Session) -> None:
    feeds = example_inputs(session.spec.inputs)
    threads, raised = in_threads(lambda: session.run(feeds), 2)
    closers = [threading.Thread(target=session.close) for _ in range(3)]
    for closer in closers:
        closer.start()
    join([*closers, *threads])
    assert {type(error) for error in raised} == {ClosedError}


def test_a_forked_child_is_refused_and_the_parent_goes_on(session: Session) -> None:
    """Forked while other threads are in the engine, and hold whatever they hold."""
    feeds = example_inputs(session.spec.inputs)
    threads, raised = in_threads(lambda: session.run(feeds), 2)

    def check() -> None:
        with pytest.raises(ClosedError, match=r"opened by process \d+ and cannot be used in its forked child"):
            session.run(feeds)
        session.close()
        with pytest.raises(ClosedError):
            session.run(feeds)

    assert in_child(check) == 0
    assert not raised
    session.run(feeds)
    session.close()
    join(threads)
    assert {type(error) for error in raised} == {ClosedError}


@pytest.mark.parametrize("release", GPU_RELEASES, ids=str)
def test_nothing_of_a_gpu_is_used_or_freed_by_a_forked_child(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with host_gpu_with(release, monkeypatch, tmp_path) as host:
        path = write_plan(tmp_path, "unet", release)
        session = open_it(path, release, "unet")
        kept = [session.run(example_inputs(session.spec.inputs), keep=["prediction"])]
        calls = len(host.calls)

        def check() -> None:
            session.close()
            kept.clear()
            gc.collect()
            with pytest.raises(EngineError, match=r"the GPU is in use by process \d+ and cannot be used in its forked"):
                open_it(path, release, "unet")
            assert len(host.calls) == calls

        assert in_child(check) == 0
        kept.clear()
        session.close()
        assert not host.blocks


@pytest.fixture(params=["cpu", *(pytest.param(release, id=str(release)) for release in GPU_RELEASES)])
def played(
    request: pytest.FixtureRequest, bundle_path: Path, planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A bundle for requests: on the CPU's engines, and on those of TensorRT and TensorRT-RTX."""
    if not isinstance(request.param, Release):
        yield bundle_path
        return
    with host_gpu_with(request.param, monkeypatch, tmp_path) as host:
        yield engines_of(planned, tmp_path / "engines", request.param)
        assert host.launches, "it was drawn with"


def test_a_pipeline_is_closed_while_others_draw(played: Path) -> None:
    pipeline = Pipeline.load(played, threads=1)
    dialogue = pipeline.chat()
    threads, raised = in_threads(lambda: pipeline.generate(["A cat."], words=2), 2)
    more, also_raised = in_threads(lambda: dialogue.send("It sits."), 1)
    pipeline.close()
    join([*threads, *more])
    assert [type(error) for error in (*raised, *also_raised)] == [ClosedError] * 3, (raised, also_raised)


def test_a_pipeline_in_a_forked_child(played: Path, bundle_path: Path) -> None:
    """It refuses whatever is begun or gone on with and closes quietly; one on the CPU may be loaded there."""
    pipeline = Pipeline.load(played, threads=2)
    on_cpu = played == bundle_path
    dialogue, half_done = pipeline.chat(), pipeline.stream(["A cat."])
    dialogue.send("A cat.")
    next(half_done)
    expected = np.asarray(pipeline.generate(["A cat."]).image)
    threads, raised = in_threads(lambda: pipeline.generate(["A cat."]), 2)

    def check() -> None:
        for begin in (
            lambda: pipeline.generate(["A cat."]),
            lambda: dialogue.send("It sits."),
            lambda: next(half_done),
        ):
            with pytest.raises(ClosedError, match="forked child"):
                begin()
        half_done.close()
        pipeline.close()
        with Pipeline.load(bundle_path, threads=2) as own:
            found = np.asarray(own.generate(["A cat."]).image)
            assert not on_cpu or np.array_equal(found, expected)
        if not on_cpu:
            with pytest.raises(EngineError, match="the GPU is in use by process"):
                Pipeline.load(played)

    assert in_child(check) == 0
    assert not raised
    *_, last = half_done
    np.testing.assert_array_equal(np.asarray(last.result.image), expected)
    pipeline.close()
    join(threads)


@pytest.mark.parametrize("release", [None, *GPU_RELEASES], ids=str)
def test_a_process_ends_while_threads_draw(
    bundle_path: Path, planned: Path, tmp_path: Path, release: Release | None
) -> None:
    """With its own exit code and without a word, though native code runs in daemon threads."""
    bundle, of_gpu = (bundle_path, []) if release is None else (planned, [str(release)])
    command = [sys.executable, "-m", ending_process.__name__, str(bundle), str(tmp_path), *of_gpu]
    own = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}  # set by this process
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False, env=own)
    assert (done.returncode, done.stdout, done.stderr) == (ending_process.OF_THE_PROCESS, "", "")


@pytest.mark.parametrize("chat", [False, True])
def test_requests_dropped_half_done(bundle_path: Path, *, chat: bool) -> None:
    """By the last reference to them, or in a cycle that the collector finds, in whatever thread it runs."""
    pipeline = Pipeline.load(bundle_path, threads=1)
    expected = np.asarray(pipeline.generate(["A cat."]).image)
    threads, raised = in_threads(lambda: pipeline.generate(["A dog."], steps=1) and gc.collect(0), 1)
    for _ in range(20):
        stream = pipeline.chat().stream("A cat.") if chat else pipeline.stream(["A cat."])
        next(stream)
        cycle: list[object] = [stream]
        cycle.append(cycle)
        del stream, cycle
    gc.collect()
    np.testing.assert_array_equal(np.asarray(pipeline.generate(["A cat."]).image), expected)
    assert not raised
    pipeline.close()
    join(threads)


@pytest.mark.slow
def test_interrupted_requests_leave_the_pipeline_usable(tiny_bundle: Path) -> None:
    """Ctrl-C within a call ends the request before the next; wherever it comes, the pipeline draws as before, and
    closing does not wait.
    """
    command = [sys.executable, "-m", interrupted_process.__name__, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["calls"], told["same"]) == ([*interrupted_process.CALLS], True)
    assert told["closing_s"] < PATIENCE_S / 2


class Freed:
    """Counts how often something is freed."""

    def __init__(self) -> None:
        self.times = 0

    def free(self) -> None:
        self.times += 1


def test_the_last_call_frees_where_closing_could_not_wait() -> None:
    """Closed from within a call, as a handler of signals may, and by one whose patience ends."""
    freed, entered, leave = Freed(), threading.Event(), threading.Event()
    lifetime = Lifetime("it", freed.free)

    def call() -> None:
        with lifetime:
            entered.set()
            assert leave.wait(PATIENCE_S)

    thread = threading.Thread(target=call)
    thread.start()
    assert entered.wait(PATIENCE_S)
    lifetime.end(patience_s=0.01)
    assert freed.times == 0
    leave.set()
    join([thread])
    assert freed.times == 1
    lifetime.end()
    assert freed.times == 1

    other = Freed()
    own = Lifetime("it", other.free)
    with own:
        own.end()
        assert other.times == 0
        with pytest.raises(ClosedError, match="it is closed; load the pipeline again"), own:
            pass
    assert other.times == 1


def test_nothing_else_is_raised_by_a_closed_stream(bundle_path: Path) -> None:
    pipeline = Pipeline.load(bundle_path, threads=1)
    streams: list[Stream] = [pipeline.stream(["A cat."]) for _ in range(3)]
    next(streams[0])
    pipeline.close()
    for stream in streams:
        with pytest.raises(MgccError, match="is closed; load the pipeline again"):
            next(stream)
        stream.close()
