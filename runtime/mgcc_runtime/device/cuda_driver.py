"""The few calls of the CUDA driver that the TensorRT engine needs, through ctypes: no package beside the driver.

The primary context is used, the one that TensorRT itself works in.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from mgcc_runtime.errors import EngineError, StageMemoryError

_LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
_OUT_OF_MEMORY = 2
#: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, ..._MINOR, CU_DEVICE_ATTRIBUTE_INTEGRATED, ..._MULTIPROCESSOR_COUNT.
_MAJOR, _MINOR, _INTEGRATED, _MULTIPROCESSORS = 75, 76, 18, 16

_Pointer, _Size, _Int = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_Address = ctypes.c_uint64  # CUdeviceptr
_Out = ctypes.POINTER

#: Functions of the driver's C interface (cuda.h) with the types of their arguments; each returns a CUresult.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDriverGetVersion": (_Out(_Int),),
    "cuDeviceGet": (_Out(_Int), _Int),
    "cuDeviceGetName": (ctypes.c_char_p, _Int, _Int),
    "cuDeviceGetAttribute": (_Out(_Int), _Int, _Int),
    "cuDeviceTotalMem_v2": (_Out(_Size), _Int),
    "cuDevicePrimaryCtxRetain": (_Out(_Pointer), _Int),
    "cuDevicePrimaryCtxRelease_v2": (_Int,),
    "cuCtxSetCurrent": (_Pointer,),
    "cuCtxPushCurrent_v2": (_Pointer,),
    "cuCtxPopCurrent_v2": (_Out(_Pointer),),
    "cuCtxSynchronize": (),
    "cuMemGetInfo_v2": (_Out(_Size), _Out(_Size)),
    "cuMemAlloc_v2": (_Out(_Address), _Size),
    "cuMemFree_v2": (_Address,),
    "cuMemHostAlloc": (_Out(_Pointer), _Size, ctypes.c_uint),
    "cuMemFreeHost": (_Pointer,),
    "cuMemcpyHtoDAsync_v2": (_Address, _Pointer, _Size, _Pointer),
    "cuMemcpyDtoHAsync_v2": (_Pointer, _Address, _Size, _Pointer),
    "cuMemcpyDtoDAsync_v2": (_Address, _Address, _Size, _Pointer),
    "cuStreamCreate": (_Out(_Pointer), ctypes.c_uint),
    "cuStreamSynchronize": (_Pointer,),
    "cuStreamDestroy_v2": (_Pointer,),
    "cuStreamBeginCapture_v2": (_Pointer, _Int),
    "cuStreamEndCapture": (_Pointer, _Out(_Pointer)),
    "cuGraphInstantiateWithFlags": (_Out(_Pointer), _Pointer, ctypes.c_ulonglong),
    "cuGraphLaunch": (_Pointer, _Pointer),
    "cuGraphExecDestroy": (_Pointer,),
    "cuGraphDestroy": (_Pointer,),
    "cuGetErrorString": (_Int, _Out(ctypes.c_char_p)),
}


class Driver:
    """The driver's functions by name; a result other than success becomes an EngineError."""

    def __init__(self, find: Callable[[str], Any]) -> None:
        self._functions: dict[str, Any] = {}
        for name, arguments in SIGNATURES.items():
            function = find(name)
            function.argtypes, function.restype = list(arguments), _Int
            self._functions[name] = function
        self._opened_by = os.getpid()
        self.call("cuInit", 0)

    @property
    def inherited(self) -> bool:
        """Whether this is a forked child of the process that opened it, where nothing of it can be used or freed."""
        return self._opened_by != os.getpid()

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function; StageMemoryError when the device's memory is out, EngineError for other failures."""
        if self.inherited:
            raise EngineError(
                f"the GPU is in use by process {self._opened_by} and cannot be used in its forked child {os.getpid()}; "
                "start processes that draw by `spawn`"
            )
        code = self._functions[name](*arguments)
        if code == _OUT_OF_MEMORY:
            raise StageMemoryError(
                f"the GPU is out of memory in {name}; close other programs that use it, or build a bundle of lower "
                "precision"
            )
        if code:
            text = ctypes.c_char_p()
            self._functions["cuGetErrorString"](code, ctypes.byref(text))
            told = (text.value or b"unknown error").decode(errors="replace")
            raise EngineError(
                f"the CUDA driver's {name} failed with {code} ({told}); start this program again, since an error of "
                "the GPU stays with the process"
            )

    @contextlib.contextmanager
    def in_context(self, context: int) -> Iterator[None]:
        """Have a context current in this thread meanwhile, and then the one that was: for a thread that is not ours."""
        self.call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent_v2", ctypes.byref(_Pointer()))


@functools.cache
def driver() -> Driver:
    """The driver of this machine; EngineError if there is none."""
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return Driver(functools.partial(getattr, library))
    raise EngineError(
        "this bundle needs an NVIDIA GPU, but this machine has no CUDA driver (libcuda); install the driver, or use a "
        "bundle that was built with --target cpu"
    )


@dataclass(frozen=True)
class Device:
    """A GPU."""

    name: str
    compute_capability: str  # "8.7"
    driver_version: str  # of CUDA: "13.0"
    integrated: bool = False  # it has the host's memory and none of its own, as a Jetson's
    multiprocessors: int = 0
    memory_bytes: int = 0  # in all
    context: int = 0  # handle of the primary context; 0: not retained

    @classmethod
    def first(cls) -> Device:
        """The first GPU; makes its primary context current in this thread."""
        named = cls.named()
        api, number, context = driver(), _Int(), _Pointer()
        api.call("cuDeviceGet", ctypes.byref(number), 0)
        api.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), number)
        api.call("cuCtxSetCurrent", context)
        return replace(named, context=int(context.value or 0))

    @classmethod
    def named(cls) -> Device:
        """The first GPU without its context, which would take memory of it: to be described, not to be used."""
        api, number = driver(), _Int()
        api.call("cuDeviceGet", ctypes.byref(number), 0)
        name, version = ctypes.create_string_buffer(256), _Int()
        api.call("cuDeviceGetName", name, len(name), number)
        api.call("cuDriverGetVersion", ctypes.byref(version))
        asked = (_MAJOR, _MINOR, _INTEGRATED, _MULTIPROCESSORS)
        major, minor, integrated, multiprocessors = (_attribute(api, which, number) for which in asked)
        memory = _Size()
        api.call("cuDeviceTotalMem_v2", ctypes.byref(memory), number)
        return cls(
            name.value.decode(errors="replace"), f"{major}.{minor}",
            f"{version.value // 1000}.{version.value % 1000 // 10}", bool(integrated), multiprocessors, memory.value,
        )  # fmt: skip

    def use(self) -> None:
        """Make the device's context current in this thread; each thread has to, before anything else."""
        driver().call("cuCtxSetCurrent", self.context)

    def wait(self) -> None:
        """Wait until all work in the context is done, in whatever stream it was queued."""
        driver().call("cuCtxSynchronize")


def _attribute(api: Driver, which: int, device: ctypes.c_int) -> int:
    value = _Int()
    api.call("cuDeviceGetAttribute", ctypes.byref(value), which, device)
    return value.value
