"""A CUDA driver and a TensorRT on the host's memory, so that all of our side of them runs without a GPU.

The driver's functions are C function pointers with the types of cuda.h, over malloc and memcpy; the "engine" is an ONNX
graph that ONNX Runtime plays on the addresses that it is given. What only a GPU can show (kernels, real capture, real
plans) is in tests/gpu. `test_engines_tensorrt.py` holds the names used here against the real library's.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from mgcc_runtime.engines.cuda import SIGNATURES, Driver

OUT_OF_MEMORY = 2


class HostDriver:
    """Counts what is allocated and launched; `memory_bytes` is all that this GPU has."""

    def __init__(self, memory_bytes: int = 1 << 30, capability: tuple[int, int] = (8, 9)) -> None:
        self.memory_bytes, self.capability = memory_bytes, capability
        self.blocks: dict[int, Any] = {}
        self.calls: list[str] = []
        self.capturing: list[Callable[[], None]] | None = None
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.launches = 0
        self.fail: dict[str, int] = {}
        self._functions = {n: ctypes.CFUNCTYPE(ctypes.c_int, *a)(self._entry(n)) for n, a in SIGNATURES.items()}

    def driver(self) -> Driver:
        return Driver(self._functions.__getitem__)

    @property
    def allocated(self) -> int:
        return sum(len(block) for block in self.blocks.values())

    def _entry(self, name: str) -> Callable[..., int]:
        act = getattr(self, f"_{name}", lambda *_: 0)

        def called(*arguments: Any) -> int:
            self.calls.append(name)
            if name not in self.fail:
                return act(*arguments) or 0
            if name == "cuStreamEndCapture":
                self.capturing = None  # the driver ends a capture also where it reports that something spoilt it
            return self.fail[name]

        return called

    def _cuDriverGetVersion(self, out: Any) -> None:  # noqa: N802 - the driver's own names
        out[0] = 13000

    def _cuDevicePrimaryCtxRetain(self, out: Any, device: int) -> None:  # noqa: N802
        out[0] = 7

    def _cuDeviceGetName(self, out: int, length: int, device: int) -> None:  # noqa: N802
        pass  # the buffer is zeros: an empty name

    def _cuDeviceGetAttribute(self, out: Any, which: int, device: int) -> None:  # noqa: N802
        out[0] = self.capability[0] if which == 75 else self.capability[1]

    def _cuMemGetInfo_v2(self, free: Any, total: Any) -> None:  # noqa: N802
        free[0], total[0] = self.memory_bytes - self.allocated, self.memory_bytes

    def _cuMemAlloc_v2(self, out: Any, size: int) -> int:  # noqa: N802
        if self.allocated + size > self.memory_bytes:
            return OUT_OF_MEMORY
        block = (ctypes.c_ubyte * size)()
        ctypes.memset(block, 0xAA, size)  # memory that nobody wrote is no zeros
        address = ctypes.addressof(block)
        self.blocks[address] = block
        out[0] = address
        return 0

    def _cuMemFree_v2(self, address: int) -> None:  # noqa: N802
        del self.blocks[address]  # a second free is a KeyError, as it would be a crash

    def _cuMemcpyHtoDAsync_v2(self, target: int, source: int, size: int, stream: int) -> None:  # noqa: N802
        self._check(target, size)
        ctypes.memmove(target, source, size)

    def _cuMemcpyDtoHAsync_v2(self, target: int, source: int, size: int, stream: int) -> None:  # noqa: N802
        self._check(source, size)
        ctypes.memmove(target, source, size)

    def _cuMemcpyDtoDAsync_v2(self, target: int, source: int, size: int, stream: int) -> None:  # noqa: N802
        self._check(source, size)
        self._check(target, size)
        ctypes.memmove(target, source, size)

    def _check(self, address: int, size: int) -> None:
        inside = any(start <= address and address + size <= start + len(b) for start, b in self.blocks.items())
        assert inside, f"{size} bytes at {address:#x} are outside of the GPU's memory"

    def _cuStreamCreate(self, out: Any, flags: int) -> None:  # noqa: N802
        out[0] = 11

    def _cuStreamBeginCapture_v2(self, stream: int, mode: int) -> None:  # noqa: N802
        self.capturing = []

    def _cuStreamEndCapture(self, stream: int, out: Any) -> None:  # noqa: N802
        assert self.capturing is not None
        number = 100 + len(self.graphs)
        self.graphs[number], self.capturing = self.capturing, None
        out[0] = number

    def _cuGraphInstantiateWithFlags(self, out: Any, graph: int, flags: int) -> None:  # noqa: N802
        out[0] = graph

    def _cuGraphLaunch(self, graph: int, stream: int) -> None:  # noqa: N802
        self.launches += 1
        for work in self.graphs[graph]:
            work()

    def do(self, work: Callable[[], None]) -> None:
        """Run queued work, or record it during a capture."""
        if self.capturing is not None:
            self.capturing.append(work)
        else:
            work()


class HostContext:
    """An execution context: shapes and addresses by name, then the graph on them."""

    def __init__(self, engine: HostEngine) -> None:
        self.engine, self.profile = engine, 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return memory != 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self.scratch = (memory, size)

    def is_stream_capturable(self, stream: int) -> bool:
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        lengths: dict[str, int] = {}
        for tensor in self.engine.graph.input:
            lengths |= {d.dim_param: n for d, n in zip(_dims(tensor), self.shapes[tensor.name], strict=True)}
        if "P" in lengths:
            lengths["T"] = lengths["P"] + lengths["S"]
        output = next(t for t in self.engine.graph.output if t.name == name)
        return tuple(lengths[d.dim_param] if d.dim_param else d.dim_value for d in _dims(output))

    def execute_async_v3(self, stream_handle: int) -> bool:
        addresses, shapes = dict(self.addresses), dict(self.shapes)
        self.engine.driver.do(lambda: self._play(addresses, shapes))
        return True

    def _play(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        driver, graph = self.engine.driver, self.engine.graph
        ctypes.memset(self.scratch[0], 0x55, self.scratch[1])  # stages take turns with it: nothing may rely on it
        feeds = {}
        for tensor in graph.input:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type)
            feeds[tensor.name] = np.empty(shapes[tensor.name], kind)
            size = feeds[tensor.name].nbytes
            driver._check(addresses[tensor.name], size)
            ctypes.memmove(feeds[tensor.name].ctypes.data, addresses[tensor.name], size)
        names = [t.name for t in graph.output]
        for name, value in zip(names, self.engine.session.run(names, feeds), strict=True):
            array = np.ascontiguousarray(value)
            driver._check(addresses[name], array.nbytes)
            ctypes.memmove(addresses[name], array.ctypes.data, array.nbytes)


class HostEngine:
    """The "plan" is an ONNX file; two thirds of a MiB of activations, which stages share."""

    device_memory_size_v2 = 700_000

    def __init__(self, driver: HostDriver, plan: bytes) -> None:
        self.driver, self.graph = driver, onnx.load_from_string(plan).graph
        settings = ort.SessionOptions()
        settings.log_severity_level = 4
        self.session = ort.InferenceSession(plan, settings, providers=["CPUExecutionProvider"])

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(set_execution_context_allocation_strategy=lambda strategy: None)

    def create_execution_context(self, strategy: Any) -> HostContext:
        assert strategy is Allocation.USER_MANAGED
        return HostContext(self)


class HostRtxEngine(HostEngine):
    """TensorRT-RTX makes contexts by a runtime configuration."""

    def create_runtime_config(self) -> HostRuntimeConfig:
        return HostRuntimeConfig()

    def create_execution_context(self, runtime_config: Any) -> HostContext:
        assert runtime_config.strategy is Allocation.USER_MANAGED
        return HostContext(self)


class HostRuntimeConfig:
    cuda_graph_strategy = None
    dynamic_shapes_kernel_specialization_strategy = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> HostRuntimeCache:
        return HostRuntimeCache()

    def set_runtime_cache(self, cache: HostRuntimeCache) -> bool:
        return True


class HostRuntimeCache:
    """Compiles one kernel more at each start."""

    def __init__(self) -> None:
        self.kernels = b""

    def deserialize(self, blob: bytes) -> bool:
        self.kernels = bytes(blob)
        return True

    def serialize(self) -> bytes:
        return self.kernels or b"kernel"


class Allocation(enum.Enum):
    STATIC = 0
    USER_MANAGED = 2


class Validity(enum.IntEnum):
    VALID = 0
    INVALID = 2


class Diagnostics(enum.IntFlag):
    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2
    OLD_CUDA_DRIVER = 4
    OLD_CUDA_RUNTIME = 8
    INSUFFICIENT_GPU_MEMORY = 16
    MALFORMED_ENGINE = 32
    CUDA_ERROR = 64


def host_tensorrt(driver: HostDriver, *, rtx: bool, version: str, diagnosis: int = 0) -> Any:
    """A module with the part of TensorRT's interface that the runtime uses."""

    class Logger:
        def __init__(self) -> None:
            pass

    class Runtime:
        engine_header_size = 64

        def __init__(self, logger: Any) -> None:
            assert isinstance(logger, Logger)

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> HostEngine:
            return (HostRtxEngine if rtx else HostEngine)(driver, serialized_engine)

    if rtx:
        Runtime.get_engine_validity = lambda self, buffer: (  # type: ignore[attr-defined]
            (Validity.INVALID if diagnosis else Validity.VALID), diagnosis,
        )  # fmt: skip
    module = ModuleType("tensorrt_rtx" if rtx else "tensorrt")
    vars(module).update(
        __version__=version,
        ILogger=Logger,
        Runtime=Runtime,
        EngineValidity=Validity,
        EngineInvalidityDiagnostics=Diagnostics,
        ExecutionContextAllocationStrategy=Allocation,
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(LAZY=0, EAGER=1, NONE=2),
        CudaGraphStrategy=SimpleNamespace(DISABLED=0),
    )
    return module


def _dims(tensor: onnx.ValueInfoProto) -> Any:
    return tensor.type.tensor_type.shape.dim
