"""A TensorRT on the host's memory: the interface of one release (shaped.py), played on the driver of host_gpu.py.

The "engine" is an ONNX graph that ONNX Runtime plays on the addresses that it is given. It is stricter than a GPU in
what goes wrong there only sometimes: a graph replayed after its context was changed, or captured before it has run.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from mgcc_runtime.device import cuda_driver
from mgcc_runtime.engines.tensorrt import loading, session as tensorrt
from tests.runtime.host_builder import BUILDERS
from tests.runtime.host_gpu import HostDriver
from tests.runtime.releases import Release
from tests.runtime.shaped import played, shape_module

#: An engine's file: this, the number of bytes that follow, and an ONNX graph.
MAGIC = b"host plan"
HEADER_BYTES = 64


def plan_of(graph: bytes) -> bytes:
    """The engine of an ONNX graph."""
    return (MAGIC + len(graph).to_bytes(8, "little")).ljust(HEADER_BYTES, b"\0") + graph


class HostRuntime:
    """Loads engines from a block of memory, or piece by piece as the bindings read a stream."""

    engine_header_size = HEADER_BYTES
    driver: HostDriver
    diagnosis = 0  # what TensorRT-RTX finds wrong with every engine

    def __init__(self, module: ModuleType, logger: Any) -> None:
        self._module = module

    def get_engine_validity(self, buffer: Any) -> tuple[Any, int]:
        assert bytes(buffer).startswith(MAGIC) and len(bytes(buffer)) == HEADER_BYTES
        validity = self._module.EngineValidity
        return (validity.INVALID if self.diagnosis else validity.VALID), self.diagnosis

    def deserialize_cuda_engine(
        self, serialized_engine: Any = None, stream_reader: Any = None, stream_reader_v2: Any = None
    ) -> HostEngine | None:
        if stream_reader_v2 is not None:
            graph = self._read(stream_reader_v2)
        else:
            graph = bytes(memoryview(serialized_engine)[HEADER_BYTES:])
        return HostEngine(self.driver, graph) if graph else None

    def _read(self, reader: Any) -> bytes:
        """As TensorRT does: the header, a look further on, and the rest from where that was; `destination` is kept from
        Python, which gives the bytes back instead, as many or fewer, and is asked again.
        """
        where = self._module.SeekPosition
        header = self._take(reader, HEADER_BYTES)
        size = int.from_bytes(header[len(MAGIC) : len(MAGIC) + 8], "little")
        first = self._take(reader, min(size, 16))
        if not (reader.seek(-len(first), where.CUR) and reader.seek(HEADER_BYTES, where.SET)):
            return b""
        return self._take(reader, size)

    def _take(self, reader: Any, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = memoryview(reader.read(size - len(found), 0)).cast("B")
            if not len(piece):
                return b""
            found += bytes(piece[: size - len(found)])
        return found


class HostEngine:
    """Two thirds of a MiB of activations, which stages share."""

    device_memory_size_v2 = 700_000
    device_memory_size = 700_000  # of older releases

    def __init__(self, driver: HostDriver, graph: bytes) -> None:
        self.driver, (self.graph, self.session) = driver, _opened(graph)
        self.contexts = 0

    def create_runtime_config(self) -> HostRuntimeConfig:
        return HostRuntimeConfig()

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> HostContext:
        chosen = runtime_config.strategy if strategy is None else strategy
        assert chosen.name == "USER_MANAGED"  # a context's own memory would be there once for each
        self.contexts += 1
        return HostContext(self, runtime_config)


class HostContext:
    """An execution context: shapes and addresses by name, then the graph on them."""

    def __init__(self, engine: HostEngine, config: HostRuntimeConfig | None) -> None:
        self.engine, self._config = engine, config
        self.active_optimization_profile = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)
        self.changes = 0
        self._settled = -1  # `changes` when it last ran

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.active_optimization_profile = profile_index
        self.changes += 1
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        self.changes += 1
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        self.changes += 1
        return memory != 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self.scratch = (memory, size)
        self.changes += 1

    def is_stream_capturable(self, stream: int) -> bool:
        return True

    def get_tensor_shape(self, name: str) -> HostDims:
        if name in self.shapes:
            return HostDims(self.shapes[name])
        lengths: dict[str, int] = {}
        for tensor in self.engine.graph.input:
            lengths |= {d.dim_param: n for d, n in zip(_dims(tensor), self.shapes[tensor.name], strict=True)}
        if "P" in lengths:
            lengths["T"] = lengths["P"] + lengths["S"]
        output = next(t for t in self.engine.graph.output if t.name == name)
        return HostDims(lengths[d.dim_param] if d.dim_param else d.dim_value for d in _dims(output))

    def execute_async_v3(self, stream_handle: int) -> bool:
        driver, changes = self.engine.driver, self.changes
        addresses, shapes, scratch = dict(self.addresses), dict(self.shapes), self.scratch
        if self._config is not None:
            self._config.compile(shapes)
        if driver.capturing is None:
            self._settled = changes
            driver.do(lambda: self._play(addresses, shapes, scratch))
            return True
        driver.spoilt |= self._settled != changes  # what depends on shapes and places is set up in the first run

        def replay() -> None:
            assert self.changes == changes, "a graph is replayed whose context was changed after the capture"
            self._play(addresses, shapes, scratch)

        driver.do(replay)
        return True

    def _play(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]], scratch: tuple[int, int]) -> None:
        driver, graph = self.engine.driver, self.engine.graph
        driver.check(*scratch)
        ctypes.memset(*scratch[:1], 0x55, scratch[1])  # stages take turns with it: nothing may rely on it
        feeds = {}
        for tensor in graph.input:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type)
            feeds[tensor.name] = np.empty(shapes[tensor.name], kind)
            size = feeds[tensor.name].nbytes
            driver.check(addresses[tensor.name], size)
            ctypes.memmove(feeds[tensor.name].ctypes.data, addresses[tensor.name], size)
        names = [t.name for t in graph.output]
        for name, value in zip(names, self.engine.session.run(names, feeds), strict=True):
            array = np.ascontiguousarray(value)
            driver.check(addresses[name], array.nbytes)
            ctypes.memmove(addresses[name], array.ctypes.data, array.nbytes)


class HostDims(tuple[int, ...]):
    """A shape."""

    __slots__ = ()


class HostRuntimeConfig:
    """What contexts are made with. TensorRT has less of it than TensorRT-RTX."""

    cuda_graph_strategy: Any = None
    dynamic_shapes_kernel_specialization_strategy: Any = None

    def __init__(self) -> None:
        self.strategy: Any = None
        self._cache: HostRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> HostRuntimeCache:
        return HostRuntimeCache()

    def set_runtime_cache(self, cache: HostRuntimeCache) -> bool:
        self._cache = cache
        return True

    def compile(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """What running these shapes adds to the cache."""
        if self._cache is not None:
            self._cache.add(repr(sorted(shapes.items())).encode())


class HostRuntimeCache:
    """The kernels that were compiled: one for the engine, which the first run brings."""

    def __init__(self) -> None:
        self.kernels: list[bytes] = []
        self.compiled = 0

    def add(self, shapes: bytes) -> None:
        if b"kernel" not in self.kernels:
            self.kernels.append(b"kernel")
            self.compiled += 1

    def deserialize(self, blob: Any) -> bool:
        self.kernels = bytes(blob).split(b"|")
        return True

    def serialize(self) -> bytes:
        return b"|".join(self.kernels)


@functools.cache
def host_tensorrt(release: Release) -> ModuleType:
    """A release's module, for the machine that `host_gpu_with` made last."""
    return shape_module(release, {"Runtime": HostRuntime, **BUILDERS})


@contextlib.contextmanager
def host_gpu_with(release: Release, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[HostDriver]:
    """This machine with a GPU on its own memory, with the library of this release and no other."""
    driver = HostDriver()
    api = driver.driver()
    monkeypatch.setattr(cuda_driver, "driver", lambda: api)
    monkeypatch.setenv("MGCC_CACHE", str(folder / "cache"))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, release.library, host_tensorrt(release))
    monkeypatch.setattr(HostRuntime, "driver", driver, raising=False)
    tensorrt.gpu_memory.cache_clear()
    loading._logger.cache_clear()
    yield driver
    tensorrt.gpu_memory.cache_clear()
    assert not driver.faults, driver.faults


def engine_of(session: Any) -> HostEngine:
    """What plays the engine of a session of the runtime's."""
    found: HostEngine = played(session._engine._engine._engine)
    return found


@functools.lru_cache(maxsize=64)
def _opened(graph: bytes) -> tuple[onnx.GraphProto, ort.InferenceSession]:
    """A graph and what plays it; it holds nothing of a call, so all tests share it."""
    settings = ort.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
    return onnx.load_from_string(graph).graph, session


def _dims(tensor: onnx.ValueInfoProto) -> Any:
    return tensor.type.tensor_type.shape.dim
