"""A process that ends while threads draw; started by `test_lifetimes.py`: ending_process.py BUNDLE FOLDER [RELEASE].

It has imported ONNX Runtime first, by itself. Daemon threads keep every engine busy, a forked child ends in the
ordinary way, and requests are left half done. The process ends with 3. With a release of TensorRT or TensorRT-RTX its
engines, built of BUNDLE, play on a GPU of the host's memory, beside a stage on OpenVINO.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import onnxruntime  # noqa: F401 - as a host program may
import pytest

from mgcc_runtime import Pipeline, lifetime
from mgcc_runtime.engines import EngineOptions, open_session
from tests.runtime.engine_makers import engines_of, spec_of, write_onnx
from tests.runtime.golden_data import example_inputs
from tests.runtime.host_gpu import HostDriver
from tests.runtime.host_tensorrt import host_gpu_with
from tests.runtime.releases import RELEASES

OF_THE_CHILD, OF_THE_PROCESS, OF_A_GPU_AT_FAULT = 5, 3, 7


def work_for(folder: Path, pipeline: Pipeline) -> list[Callable[[], object]]:
    """What the threads do again and again: a stage on each engine, and requests."""
    path, spec = write_onnx(folder, "unet"), spec_of("unet")
    sessions = [open_session(engine, path, spec, EngineOptions(2)) for engine in ("onnxruntime", "openvino")]
    feeds = example_inputs(spec.inputs)
    stages: list[Callable[[], object]] = [lambda s=session: s.run(feeds) for session in sessions]  # type: ignore[misc]
    return [*stages, lambda: pipeline.generate(["A cat."], words=4), lambda: pipeline.generate(["A cat."])]


def keep_busy(work: Callable[[], object], started: threading.Barrier) -> None:
    work()
    started.wait(60)
    while True:
        work()


def forked_child_ends() -> int:
    """The exit code of a child that does nothing but end, through all of the interpreter's own end; -9 if it hangs."""
    if (child := os.fork()) == 0:
        sys.exit(OF_THE_CHILD)
    hanging = threading.Timer(30, os.kill, (child, signal.SIGKILL))
    hanging.start()
    status = os.waitpid(child, 0)[1]
    hanging.cancel()
    return os.waitstatus_to_exitcode(status)


def engines_on_a_gpu(planned: Path, folder: Path, name: str) -> Path:
    """A bundle of engines of the release of this name, on a GPU that is there to the end of the process."""
    release = next(release for release in RELEASES if str(release) == name)
    gpu = host_gpu_with(release, pytest.MonkeyPatch(), folder)
    driver = gpu.__enter__()
    atexit.unregister(lifetime._at_exit)  # which has to come before our own: the last that was registered is the first
    atexit.register(_check, gpu, driver)
    atexit.register(lifetime._at_exit)
    return engines_of(planned, folder / "engines", release)


def _check(gpu: object, driver: HostDriver) -> None:
    """At the very end of the process; `gpu` is kept until then."""
    if driver.faults or not driver.launches:
        os._exit(OF_A_GPU_AT_FAULT)


def main() -> None:
    bundle, folder, *release = sys.argv[1:]
    place = Path(folder)
    pipeline = Pipeline.load(engines_on_a_gpu(Path(bundle), place, *release) if release else bundle, threads=1)
    works = work_for(place, pipeline)
    started = threading.Barrier(len(works) + 1)
    for work in works:
        threading.Thread(target=keep_busy, args=(work, started), daemon=True).start()
    dialogue = pipeline.chat()
    half_done = [pipeline.stream(["A cat."]), dialogue.stream("A cat.")]
    for stream in half_done:
        next(stream)
    cycle: list[object] = list(half_done)
    cycle.append(cycle)  # which only the collector ends
    started.wait(60)
    if (code := forked_child_ends()) != OF_THE_CHILD:
        sys.exit(f"the forked child ended with {code}")
    sys.exit(OF_THE_PROCESS)


if __name__ == "__main__":
    main()
