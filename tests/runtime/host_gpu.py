"""A CUDA driver on the host's memory, so that all of our side of it runs without a GPU.

Its functions take what CUDA's headers say (cuda_api/*.json). Work is queued and done no earlier than it must be, as on
a GPU: who reads a result or writes over a source before waiting finds out. What only a GPU can show (kernels, real
capture, real plans) is in tests/gpu.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mgcc_runtime.device.cuda_driver import Driver

FOLDER = Path(__file__).parent / "cuda_api"
RELEASES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
#: A type of cuda.h -> how ctypes passes it. Handles are pointers, enumerations ints.
_HANDLES = ("CUcontext", "CUstream", "CUgraph", "CUgraphExec")
C_TYPES: dict[str, Any] = {
    "int": ctypes.c_int, "unsigned int": ctypes.c_uint, "size_t": ctypes.c_size_t,
    "unsigned long long": ctypes.c_ulonglong, "CUdevice": ctypes.c_int, "CUdeviceptr": ctypes.c_uint64,
    "CUresult": ctypes.c_int, "CUdevice_attribute": ctypes.c_int, "CUstreamCaptureMode": ctypes.c_int,
    "void *": ctypes.c_void_p, "const void *": ctypes.c_void_p, "char *": ctypes.c_char_p,
    "const char **": ctypes.POINTER(ctypes.c_char_p), "void **": ctypes.POINTER(ctypes.c_void_p),
    **dict.fromkeys(_HANDLES, ctypes.c_void_p),
}  # fmt: skip
C_TYPES |= {
    f"{name} *": ctypes.POINTER(C_TYPES[name]) for name in ("int", "size_t", "CUdevice", "CUdeviceptr", *_HANDLES)
}

#: Need no context; all others fail without one.
_WITHOUT_CONTEXT = (
    "cuInit", "cuDriverGetVersion", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute", "cuGetErrorString",
    "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2", "cuCtxSetCurrent", "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2", "cuDeviceTotalMem_v2",
)  # fmt: skip
CONTEXT = 7


def facts(release: str = RELEASES[-1]) -> dict[str, Any]:
    """What the header of a CUDA release says of the functions that the runtime calls."""
    found: dict[str, Any] = json.loads((FOLDER / f"{release}.json").read_text(encoding="utf-8"))
    return found


_FACTS = facts()
CONSTANTS: dict[str, int] = _FACTS["constants"]
OUT_OF_MEMORY = CONSTANTS["CUDA_ERROR_OUT_OF_MEMORY"]
INVALIDATED = CONSTANTS["CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"]


class HostFunction:
    """A function of the driver's library, as ctypes gives it; refuses argument types that the header does not have."""

    def __init__(self, name: str, entry: Callable[..., int]) -> None:
        arguments = [C_TYPES[told] for told in _FACTS["functions"][name]]
        self._call = ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(entry)
        self._name, self._arguments = name, arguments

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "argtypes" and value != self._arguments:
            raise TypeError(f"{self._name} takes {self._arguments}, not {value}")
        super().__setattr__(name, value)

    def __call__(self, *given: Any) -> int:
        if len(given) != len(self._arguments):
            raise TypeError(f"{self._name} takes {len(self._arguments)} arguments, not {len(given)}")
        return int(self._call(*given))


class HostDriver:
    """Counts what is allocated and launched; `memory_bytes` is all that this GPU has."""

    def __init__(
        self, memory_bytes: int = 1 << 30, capability: tuple[int, int] = (8, 9), *, integrated: bool = False
    ) -> None:
        self.memory_bytes, self.capability, self.integrated = memory_bytes, capability, integrated
        self.multiprocessors = 8
        self.blocks: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.calls: list[str] = []
        self.pageable = 0  # copies from or to memory of the host that is not pinned
        self.stream_flags: list[int] = []
        self.capturing: list[Callable[[], None]] | None = None
        self._capturing_thread = 0
        self.spoilt = False  # the capture under way, by something that cannot be recorded
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.launches = 0
        self.fail: dict[str, int] = {}
        self.faults: list[BaseException] = []  # what a call from C cannot raise; the fixture looks
        self._queue: list[Callable[[], None]] = []
        self._current, self._lock = threading.local(), threading.RLock()
        self._functions = {name: HostFunction(name, self._entry(name)) for name in _FACTS["functions"]}

    def driver(self) -> Driver:
        return Driver(self._functions.__getitem__)

    @property
    def allocated(self) -> int:
        return sum(len(block) for block in self.blocks.values())

    def do(self, work: Callable[[], None]) -> None:
        """Queue work, or record it during a capture."""
        (self._queue if self.capturing is None else self.capturing).append(work)

    def finish(self) -> None:
        """Do all that is queued, as a wait does."""
        queue, self._queue = self._queue, []
        for work in queue:
            work()

    def check(self, address: int, size: int) -> None:
        inside = any(start <= address and address + size <= start + len(b) for start, b in self.blocks.items())
        assert inside, f"{size} bytes at {address:#x} are outside of the GPU's memory"

    def _entry(self, name: str) -> Callable[..., int]:
        act = getattr(self, f"_{name}", lambda *_: 0)

        def called(*arguments: Any) -> int:
            self.calls.append(name)
            if name not in _WITHOUT_CONTEXT and not self._contexts():
                return CONSTANTS["CUDA_ERROR_INVALID_CONTEXT"]
            if name in self.fail:
                if name == "cuStreamEndCapture":
                    self.capturing = None  # the driver ends a capture also where it reports that something spoilt it
                return self.fail[name]
            with self._lock:
                try:
                    return act(*arguments) or 0
                except Exception as error:  # noqa: BLE001 - ctypes would print it and go on
                    self.faults.append(error)
                    return 999  # CUDA_ERROR_UNKNOWN

        return called

    def _contexts(self) -> list[int]:
        """Those of this thread, the current one last."""
        if not hasattr(self._current, "stack"):
            self._current.stack = []
        found: list[int] = self._current.stack
        return found

    def _cuCtxSetCurrent(self, context: int) -> None:  # noqa: N802 - the driver's own names
        self._contexts()[-1:] = [context]

    def _cuCtxPushCurrent_v2(self, context: int) -> None:  # noqa: N802
        self._contexts().append(context)

    def _cuCtxPopCurrent_v2(self, out: Any) -> None:  # noqa: N802
        out[0] = self._contexts().pop()

    def _cuCtxSynchronize(self) -> None:  # noqa: N802
        self.finish()

    def _cuDriverGetVersion(self, out: Any) -> None:  # noqa: N802
        out[0] = 13000

    def _cuDevicePrimaryCtxRetain(self, out: Any, device: int) -> None:  # noqa: N802
        out[0] = CONTEXT

    def _cuDeviceGetName(self, out: int, length: int, device: int) -> None:  # noqa: N802
        pass  # the buffer is zeros: an empty name

    def _cuDeviceGetAttribute(self, out: Any, which: int, device: int) -> None:  # noqa: N802
        out[0] = {
            CONSTANTS["CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR"]: self.capability[0],
            CONSTANTS["CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR"]: self.capability[1],
            CONSTANTS["CU_DEVICE_ATTRIBUTE_INTEGRATED"]: int(self.integrated),
            CONSTANTS["CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT"]: self.multiprocessors,
        }[which]

    def _cuDeviceTotalMem_v2(self, out: Any, device: int) -> None:  # noqa: N802
        out[0] = self.memory_bytes

    def _cuMemGetInfo_v2(self, free: Any, total: Any) -> None:  # noqa: N802
        free[0], total[0] = self.memory_bytes - self.allocated, self.memory_bytes

    def _cuMemAlloc_v2(self, out: Any, size: int) -> int:  # noqa: N802
        if self.allocated + size > self.memory_bytes:
            return OUT_OF_MEMORY
        out[0] = _block(self.blocks, size)
        return 0

    def _cuMemFree_v2(self, address: int) -> None:  # noqa: N802
        self.spoilt |= self.capturing is not None and threading.get_ident() == self._capturing_thread
        self.finish()  # the driver waits for what may still use it
        del self.blocks[address]  # a second free is a KeyError, as it would be a crash

    def _cuMemHostAlloc(self, out: Any, size: int, flags: int) -> None:  # noqa: N802
        out[0] = _block(self.pinned, size)

    def _cuMemFreeHost(self, address: int) -> None:  # noqa: N802
        self.finish()
        del self.pinned[address]

    def _cuMemcpyHtoDAsync_v2(self, target: int, source: int, size: int, stream: int) -> None:  # noqa: N802
        self.check(target, size)
        if self._is_pinned(source):
            self.do(lambda: ctypes.memmove(target, source, size) and None)
            return
        self.pageable += 1
        copy = ctypes.string_at(source, size)  # the driver has taken its own by the time that it comes back
        self.do(lambda: ctypes.memmove(target, copy, size) and None)

    def _cuMemcpyDtoHAsync_v2(self, target: int, source: int, size: int, stream: int) -> None:  # noqa: N802
        self.check(source, size)
        self.do(lambda: ctypes.memmove(target, source, size) and None)
        if not self._is_pinned(target):
            self.pageable += 1
            self.finish()

    def _cuMemcpyDtoDAsync_v2(self, target: int, source: int, size: int, stream: int) -> None:  # noqa: N802
        self.check(source, size)
        self.check(target, size)
        self.do(lambda: ctypes.memmove(target, source, size) and None)

    def _is_pinned(self, address: int) -> bool:
        return any(start <= address < start + len(block) for start, block in self.pinned.items())

    def _cuStreamCreate(self, out: Any, flags: int) -> None:  # noqa: N802
        self.stream_flags.append(flags)
        out[0] = 11

    def _cuStreamSynchronize(self, stream: int) -> None:  # noqa: N802
        self.finish()

    def _cuStreamBeginCapture_v2(self, stream: int, mode: int) -> None:  # noqa: N802
        self.capturing, self.spoilt, self._capturing_thread = [], False, threading.get_ident()

    def _cuStreamEndCapture(self, stream: int, out: Any) -> int:  # noqa: N802
        assert self.capturing is not None
        recorded, self.capturing = self.capturing, None
        if self.spoilt:
            return INVALIDATED
        number = 100 + len(self.graphs)
        self.graphs[number] = recorded
        out[0] = number
        return 0

    def _cuGraphInstantiateWithFlags(self, out: Any, graph: int, flags: int) -> None:  # noqa: N802
        out[0] = graph

    def _cuGraphLaunch(self, graph: int, stream: int) -> None:  # noqa: N802
        self.launches += 1
        for work in self.graphs[graph]:
            self.do(work)

    def _cuGraphExecDestroy(self, graph: int) -> None:  # noqa: N802
        self.finish()


def _block(blocks: dict[int, Any], size: int) -> int:
    """The address of new memory of this size, kept in `blocks`."""
    block = (ctypes.c_ubyte * size)()
    ctypes.memset(block, 0xAA, size)  # memory that nobody wrote is no zeros
    address = ctypes.addressof(block)
    blocks[address] = block
    return address
