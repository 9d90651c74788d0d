"""What was chosen without a GPU, held on one: decode graphs, waits, the stream, what loading takes, what is kept.

Each test prints its figures, and says in its text which choice they decide.
"""

from __future__ import annotations

import ctypes
import importlib.util
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgcc_runtime.device import cuda_driver
from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines import DecodeGraphs, EngineOptions, Session, open_session
from mgcc_runtime.engines.tensorrt import loading
from mgcc_runtime.engines.tensorrt.cuda_memory import Buffer, free_memory_bytes
from mgcc_runtime.engines.tensorrt.features import features_of
from mgcc_runtime.engines.tensorrt.record import EngineRecord
from mgcc_runtime.machine import available_memory_bytes
from tests.gpu.decode_networks import Decoder, build
from tests.packages import needs
from tests.runtime.engine_makers import build_plan, spec_of
from tests.runtime.golden_data import example_inputs
from tests.runtime.tiny_bundle import DIMENSIONS, cache_names

pytestmark = pytest.mark.gpu

LIBRARIES = [name for name in ("tensorrt_rtx", "tensorrt") if importlib.util.find_spec(name)] or ["tensorrt_rtx"]
NAMES = cache_names(DIMENSIONS)
PRESENT = [present for _, present in NAMES]
STEPS = 24

Opener = Callable[..., Session]


@pytest.fixture(params=LIBRARIES)
def open_stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds a stage's engine on this machine once, and opens it with the options given."""
    monkeypatch.setenv("MGCC_CACHE", str(tmp_path / "cache"))
    plans: dict[str, Path] = {}
    opened: list[Session] = []

    def open_it(name: str, **options: Any) -> Session:
        if name not in plans:
            plans[name] = build_plan(tmp_path, name, request.param)
        opened.append(open_session(request.param, plans[name], spec_of(name), EngineOptions(**options)))
        return opened[-1]

    yield open_it
    for session in opened:
        session.close()


def text_ms(session: Session) -> list[float]:
    """The time of each step of a text, always of the same lengths."""
    feeds = example_inputs(session.spec.inputs)
    state, spent = session.run(feeds, keep=PRESENT).kept, []
    step = {"inputs_embeds": feeds["inputs_embeds"][:, :1]}
    for _ in range(STEPS):
        start_s = time.perf_counter()
        state = session.run(step | {past: state[p] for past, p in NAMES}, keep=PRESENT).kept
        spent.append((time.perf_counter() - start_s) * 1e3)
    return spent


def test_decode_graphs_that_are_measured_are_no_slower_than_none(open_stage: Opener) -> None:
    """`MEASURED` is the default. Where `always` is far below `never` here and on the real model, it may become that."""
    found = {}
    for choice in DecodeGraphs:
        session = open_stage("llm", decode_graphs=choice)
        for _ in range(30):  # one capture in four steps: all lengths have theirs by then
            last = text_ms(session)
        found[choice.value] = statistics.median(last)
        session.close()
    print({name: round(ms, 3) for name, ms in found.items()}, "ms a step")
    assert found["measured"] <= 1.1 * found["never"]


def test_a_capture_costs_what_its_budget_counts(open_stage: Opener) -> None:
    """Prints the GPU's memory for one decode graph, which `SHARE_OF_MEMORY` and `MOST_GRAPHS` were chosen without."""
    session = open_stage("llm", decode_graphs=DecodeGraphs.ALWAYS)
    for _ in range(12):
        text_ms(session)
    kept = list(session._engine._steps.graphs._kept.values())  # type: ignore[attr-defined]
    print([one.cost_bytes for one in kept], "bytes a graph")
    assert kept and sum(one.cost_bytes for one in kept) < 0.1 * free_memory_bytes(Device.first())


def test_a_stage_that_is_not_waited_for_comes_back_sooner_and_gives_the_same(open_stage: Opener) -> None:
    session, feeds = open_stage("unet"), example_inputs(spec_of("unet").inputs)
    expected, spent = session.run(feeds)["prediction"], {}
    for name, keep in (("waits", []), ("queues", ["prediction"])):
        times = []
        for _ in range(50):
            start_s = time.perf_counter()
            outputs = session.run(feeds, keep=keep)
            times.append((time.perf_counter() - start_s) * 1e3)
        spent[name] = statistics.median(times[10:])
    print({name: round(ms, 3) for name, ms in spent.items()}, "ms a call")
    np.testing.assert_array_equal(outputs.kept["prediction"].numpy(), expected)
    assert spent["queues"] < spent["waits"]


def test_work_in_the_default_stream_spoils_no_capture(open_stage: Opener) -> None:
    """Of the program around ours: a copy there, in another thread, while stages are captured and replayed."""
    device, stop = Device.first(), threading.Event()
    source, target = (Buffer(1 << 20, device.context) for _ in range(2))

    def disturb() -> None:
        device.use()
        while not stop.is_set():
            cuda_driver.driver().call("cuMemcpyDtoDAsync_v2", target.address, source.address, 1 << 20, None)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for name in ("unet", "solver", "vae_decoder"):
            session, feeds = open_stage(name), example_inputs(spec_of(name).inputs)
            for _ in range(5):
                session.run(feeds)
            assert session._engine._graph is not None, f"{name} was not captured"  # type: ignore[attr-defined]
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("library", LIBRARIES)
def test_loading_an_engine_takes_no_copy_of_its_file(library: str, tmp_path: Path) -> None:
    """The process's own memory, of which what is mapped from the file is no part. Where it grows by the file's size,
    the release keeps a copy of its own, and another way of reading is to be looked for.
    """
    trt = needs(library)
    decoder = Decoder(layers=24, heads=16, head_dim=64, capacity=256)
    path, logger = tmp_path / "decoder.engine", trt.Logger(trt.Logger.ERROR)
    path.write_bytes(build(trt, decoder, in_place=False, logger=logger))
    record = EngineRecord(library, trt.__version__, "", "", "", (), (), (), (), "", "")
    Device.first().use()
    before = _anonymous_bytes()
    engine = loading._load(trt, path, record, features_of(record))
    grown, size = _anonymous_bytes() - before, path.stat().st_size
    print(f"{grown / 2**20:.1f} MiB more for an engine of {size / 2**20:.1f} MiB")
    assert engine is not None and grown < size / 2


def test_kernels_are_kept_before_anything_is_closed(open_stage: Opener, tmp_path: Path) -> None:
    if "tensorrt_rtx" not in LIBRARIES:
        pytest.skip("only TensorRT-RTX compiles kernels on the device: pip install 'mgcc-edge[rtx]'")
    session = open_stage("vae_decoder")
    if session.providers != ("TensorRT-RTX",):
        pytest.skip("TensorRT compiles nothing on the device; its run of this test has nothing to look at")
    for _ in range(8):
        session.run(example_inputs(session.spec.inputs))
    assert [p.stat().st_size > 32 for p in (tmp_path / "cache" / "kernels").iterdir()] == [True]


def test_memory_that_an_integrated_gpu_can_have() -> None:
    """Prints what the driver and the system say is free; on a Jetson the greater one is counted on, up to all."""
    device = Device.first()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    cuda_driver.driver().call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    print(f"integrated: {device.integrated}, driver: {free.value}, system: {available_memory_bytes()} bytes")
    size = free_memory_bytes(device) // 2
    Buffer(size, device.context).free()  # half of what is said to be there can be had


def _anonymous_bytes() -> int:
    """Resident memory of this process that no file stands behind, by Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])
