"""Whether one CUDA graph could serve all lengths of a text, on an NVIDIA GPU: what decides how decode steps are made.

The exported language model takes a cache of P positions and gives one of P + 1, so that a captured graph is good for
one length. Releases with `ICudaEngine.get_aliased_input_tensor` (TensorRT 10.15, TensorRT-RTX 1.7) update caches in
place: capacity, addresses and shapes stay, and one graph serves every length. It reads the whole capacity at each step,
though. `test_what_one_graph_would_save` prints both times; where the one graph is faster at half the capacity and no
slower at the beginning, the exporter should write the language model so for releases that can.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines import Array
from mgcc_runtime.engines.tensorrt.cuda_memory import Buffer
from mgcc_runtime.engines.tensorrt.cuda_stream import Graph, Stream
from mgcc_runtime.measure.similarity import relative_l2
from tests.gpu.decode_networks import Decoder, build
from tests.packages import needs
from tests.runtime.releases import RELEASES

LIBRARIES = [name for name in ("tensorrt_rtx", "tensorrt") if importlib.util.find_spec(name)] or ["tensorrt_rtx"]
SMALL = Decoder(layers=2, heads=2, head_dim=64, capacity=128)
LARGE = Decoder(layers=24, heads=16, head_dim=64, capacity=1024)  # about a third of OPT-1.3B, without its MLPs
HALF_L2 = 5e-3


def library(name: str) -> Any:
    return needs(name)


def quiet(trt: Any) -> Any:
    return trt.Logger(trt.Logger.ERROR)


def updates_in_place(trt: Any) -> bool:
    """By the release's interface as it is known; a later one has what the last known has."""
    known = [r for r in RELEASES if r.library == trt.__name__]
    numbers = [int(n) for n in trt.__version__.split(".")[:2]]
    before = [r for r in known if [int(n) for n in r.version.split(".")[:2]] <= numbers]
    return bool(before) and before[-1].has("ICudaEngine.get_aliased_input_tensor")


@pytest.mark.parametrize("in_place", [False, True])
def test_the_networks_are_built(in_place: bool) -> None:  # noqa: FBT001
    """Everywhere, by TensorRT-RTX, which needs no GPU for that: so that what follows has something to run on one."""
    trt = library("tensorrt_rtx")
    assert len(build(trt, SMALL, in_place=in_place, logger=quiet(trt))) > 100_000


class Played:
    """An engine on the GPU with buffers of its own for everything."""

    def __init__(self, trt: Any, decoder: Decoder, *, in_place: bool) -> None:
        self.decoder, self.in_place = decoder, in_place
        self.device, self.stream = Device.first(), Stream()
        self._runtime = trt.Runtime(quiet(trt))
        self.engine = self._runtime.deserialize_cuda_engine(build(trt, decoder, in_place=in_place, logger=quiet(trt)))
        self.context = self.engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        scratch = self.room(int(self.engine.device_memory_size_v2))
        self.context.set_device_memory(scratch.address, scratch.size)
        self.x, self.y = self.room(2 * decoder.width), self.room(2 * decoder.width)
        size = 2 * decoder.width * decoder.capacity
        self.places = [{n: self.room(size) for n in decoder.caches} for _ in range(1 if in_place else 2)]
        self.index, self.mask = self.room(4), self.room(2 * decoder.capacity)
        self.context.set_tensor_address("x", self.x.address)
        self.context.set_tensor_address("y", self.y.address)
        if in_place:
            self.context.set_tensor_address("index", self.index.address)
            self.context.set_tensor_address("mask", self.mask.address)
            for name, buffer in self.places[0].items():
                assert self.engine.get_aliased_input_tensor(f"present.{name}") == name
                self.context.set_tensor_address(name, buffer.address)
                self.context.set_tensor_address(f"present.{name}", buffer.address)

    def room(self, size: int) -> Buffer:
        return Buffer(size, self.device.context)

    def start(self, caches: dict[str, Array]) -> None:
        """Put caches (1, heads, P, head_dim) of P positions in their place."""
        for name, values in caches.items():
            held = np.zeros((1, self.decoder.heads, self.decoder.capacity, self.decoder.head_dim), np.float16)
            held[:, :, : values.shape[2]] = values
            sent = held if self.in_place else np.ascontiguousarray(values)
            place = self.places[0 if self.in_place else values.shape[2] % 2]
            self.stream.upload(place[name].address, sent.ctypes.data, sent.nbytes)
            self.stream.synchronize()

    def step(self, x: Array, length: int, graph: Graph | None = None) -> Array:
        """One position after `length` others: x (width,) -> y (width,). With a graph that is launched instead."""
        sent = [np.ascontiguousarray(x, np.float16)]
        self.stream.upload(self.x.address, sent[0].ctypes.data, sent[0].nbytes)
        if self.in_place:
            mask = np.where(np.arange(self.decoder.capacity) <= length, 0, -1e4).astype(np.float16)
            sent += [np.array([length], np.int32), mask]
            self.stream.upload(self.index.address, sent[1].ctypes.data, 4)
            self.stream.upload(self.mask.address, mask.ctypes.data, mask.nbytes)
        else:
            self._place(length)
        if graph is None:
            assert self.context.execute_async_v3(self.stream.handle)
        else:
            graph.launch()
        found = np.empty(self.decoder.width, np.float16)
        self.stream.download(found.ctypes.data, self.y.address, found.nbytes)
        self.stream.synchronize()
        return found

    def capture(self) -> Graph:
        """The work as it is set up now, which has run once."""
        return self.stream.capture(lambda: self.context.execute_async_v3(self.stream.handle))

    def _place(self, length: int) -> None:
        shape = (1, self.decoder.heads, length, self.decoder.head_dim)
        for name in self.decoder.caches:
            assert self.context.set_input_shape(name, shape)
            self.context.set_tensor_address(name, self.places[length % 2][name].address)
            self.context.set_tensor_address(f"present.{name}", self.places[(length + 1) % 2][name].address)


@pytest.fixture(params=LIBRARIES)
def trt(request: pytest.FixtureRequest) -> Any:
    module = library(request.param)
    if not updates_in_place(module):
        pytest.skip(f"{request.param} {module.__version__} updates no caches in place; TensorRT 10.15 and later does")
    return module


def text(decoder: Decoder, steps: int) -> Iterator[Array]:
    rng = np.random.default_rng(1)
    for _ in range(steps):
        yield rng.normal(0, 1, decoder.width).astype(np.float16)


def caches(decoder: Decoder, length: int) -> dict[str, Array]:
    rng, shape = np.random.default_rng(2), (1, decoder.heads, length, decoder.head_dim)
    return {name: rng.normal(0, 1, shape).astype(np.float16) for name in decoder.caches}


@pytest.mark.gpu
def test_one_graph_serves_all_lengths_where_caches_are_updated_in_place(trt: Any) -> None:
    growing, placed = (Played(trt, SMALL, in_place=in_place) for in_place in (False, True))
    for played in (growing, placed):
        played.start(caches(SMALL, 5))
    graph = None
    for i, x in enumerate(text(SMALL, 40)):
        expected, found = growing.step(x, 5 + i), placed.step(x, 5 + i, graph)
        assert relative_l2(found, expected) <= HALF_L2, f"at length {5 + i}"
        graph = graph or placed.capture()


@pytest.mark.gpu
def test_what_one_graph_would_save(trt: Any, record_property: Any) -> None:
    """Prints the time of a step at the beginning, the middle and the end of the context, in either form."""
    growing, placed = (Played(trt, LARGE, in_place=in_place) for in_place in (False, True))
    x = next(text(LARGE, 1))
    placed.start(caches(LARGE, 8))
    placed.step(x, 8)
    graph = placed.capture()
    for length in (64, LARGE.capacity // 2, LARGE.capacity - 40):
        spent = {}
        for name, played, launched in (("growing", growing, None), ("in place, one graph", placed, graph)):
            played.start(caches(LARGE, length))
            times = []
            for i in range(30):
                start_s = time.perf_counter()
                played.step(x, length + i, launched)
                times.append((time.perf_counter() - start_s) * 1e3)
            spent[name] = statistics.median(times[5:])
        record_property(f"step_ms_at_{length}", spent)
        print({name: round(ms, 3) for name, ms in spent.items()}, "ms at", length)
        assert all(ms > 0 for ms in spent.values())
