"""Memory of the GPU, and memory of the host that the GPU copies from and to by itself."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import numpy as np

from mgcc_runtime.device import cuda_driver
from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines import Array
from mgcc_runtime.errors import EngineError
from mgcc_runtime.machine import available_memory_bytes


def free_memory_bytes(device: Device) -> int:
    """Memory of the GPU that could be had now.

    Of a GPU that has the host's memory the driver counts only what lies idle; what the system gives back when it is
    asked, such as its cache of files, counts too.
    """
    free, total = _memory_info()
    return min(max(free, available_memory_bytes()), total) if device.integrated else free


def total_memory_bytes() -> int:
    """All memory that the GPU has."""
    return _memory_info()[1]


def _memory_info() -> tuple[int, int]:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    cuda_driver.driver().call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value


class Buffer:
    """Memory of the GPU; freed with the object, in whichever thread that happens, or earlier by `free`."""

    __slots__ = ("_api", "_context", "address", "size")

    def __init__(self, size: int, context: int) -> None:
        """Of the context, which is current in this thread; StageMemoryError if there is no room."""
        self._api, self._context = cuda_driver.driver(), context
        self.size = max(size, 1)  # an empty tensor needs an address too
        address = ctypes.c_uint64()
        self._api.call("cuMemAlloc_v2", ctypes.byref(address), self.size)
        self.address = int(address.value)

    def free(self) -> None:
        if self.address and not self._api.inherited:
            address, self.address = self.address, 0
            with self._api.in_context(self._context):
                self._api.call("cuMemFree_v2", address)

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            with contextlib.suppress(EngineError):  # of a driver that goes with the process, and its memory with it
                self.free()


class PinnedBuffer:
    """Memory of the host that stays where it is: copies between it and the GPU need no host to go on.

    Of other memory the driver first makes a copy of its own, and a program waits until it has.
    """

    __slots__ = ("_api", "_context", "address", "size")

    def __init__(self, size: int, context: int) -> None:
        """Of the context, which is current in this thread; StageMemoryError if there is no room."""
        self._api, self._context, self.size = cuda_driver.driver(), context, max(size, 1)
        address = ctypes.c_void_p()
        self._api.call("cuMemHostAlloc", ctypes.byref(address), self.size, 0)
        self.address = int(address.value or 0)

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The memory's beginning as an array, which must not be used after `free`."""
        count = int(np.prod(shape, dtype=np.int64))
        held = (ctypes.c_ubyte * (count * dtype.itemsize)).from_address(self.address)
        return np.frombuffer(held, dtype, count).reshape(shape)

    def free(self) -> None:
        if self.address and not self._api.inherited:
            address, self.address = self.address, 0
            with self._api.in_context(self._context):
                self._api.call("cuMemFreeHost", address)

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            with contextlib.suppress(EngineError):  # of a driver that goes with the process, and its memory with it
                self.free()
