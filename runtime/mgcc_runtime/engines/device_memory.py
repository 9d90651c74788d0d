"""Memory of the GPU as the TensorRT engine uses it: one activation buffer for all stages, slabs for what is kept."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from mgcc_runtime.engines import Array
from mgcc_runtime.engines.cuda import Buffer, Device, Stream

ALIGNMENT = 256  # TensorRT's for tensor addresses
_LEAST_SLAB = 1 << 16
#: TensorRT's word for a type -> numpy's.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "half": np.dtype(np.float16),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "bool": np.dtype(np.bool_),
}


def byte_size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of a dense tensor."""
    return prod(shape) * dtype.itemsize


def slab_size(size: int) -> int:
    """The size rounded up to a quarter of an octave: a cache that grows by a position reuses the last slab's size."""
    if size <= _LEAST_SLAB:
        return _LEAST_SLAB
    step = 1 << max(size.bit_length() - 3, 0)
    return -(-size // step) * step


@dataclass(frozen=True)
class SlabPlan:
    """Where in one slab each of several tensors lies."""

    offsets: Mapping[str, int]
    size: int

    @classmethod
    def of(cls, sizes: Mapping[str, int]) -> SlabPlan:
        """Lay tensors of these sizes in bytes behind each other, each aligned; an empty one has an address too."""
        offsets, end = {}, 0
        for name, size in sizes.items():
            offsets[name] = end
            end += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
        return cls(offsets, end)


class Slab:
    """One allocation that several tensors share; goes back to its pool with the last of them."""

    __slots__ = ("_pool", "buffer")

    def __init__(self, pool: GpuMemory, buffer: Buffer) -> None:
        self._pool, self.buffer = pool, buffer

    def __del__(self) -> None:
        self._pool.take_back(self.buffer)


class GpuMemory:
    """Of one device: its stream, the activation buffer that all stages take turns with, and a pool of slabs.

    `lock` is held for a whole run of a stage: stages share the activation buffer, so no two may run at once.
    """

    def __init__(self) -> None:
        self.device = Device.first()
        self.stream = Stream()
        self.lock = threading.RLock()
        self.activations: Buffer | None = None
        self._free: dict[int, list[Buffer]] = {}
        self._users = 0

    def reserve(self, size: int) -> Buffer:
        """The activation buffer, at least `size` bytes; it only grows, to what the largest stage needs."""
        if self.activations is None or self.activations.size < size:
            self.stream.synchronize()
            if self.activations is not None:
                self.activations.free()
            self.activations = Buffer(size)
        return self.activations

    def slab(self, size: int) -> Slab:
        """A slab of at least `size` bytes, one that was given back if there is one."""
        rounded = slab_size(size)
        waiting = self._free.get(rounded)
        return Slab(self, waiting.pop() if waiting else Buffer(rounded))

    def take_back(self, buffer: Buffer) -> None:
        """Keep a slab's memory for the next of its size, or free it if no stage is open any more."""
        if self._users:
            self._free.setdefault(buffer.size, []).append(buffer)
        else:
            buffer.free()

    def enter(self) -> None:
        self._users += 1

    def leave(self) -> None:
        """The last stage to close frees what is shared."""
        self._users -= 1
        if self._users == 0:
            with self.lock:
                self.stream.synchronize()
                for buffers in self._free.values():
                    for buffer in buffers:
                        buffer.free()
                self._free.clear()
                if self.activations is not None:
                    self.activations.free()
                    self.activations = None


class Holder(Protocol):
    """What keeps a tensor's memory from being used for another while the tensor lives: a slab, or another place."""

    @property
    def buffer(self) -> Buffer: ...


class DeviceTensor:
    """A tensor in the GPU's memory. `dtype` is that of the contract, which `numpy()` gives; fp16 may be stored."""

    __slots__ = ("_memory", "_shape", "dtype", "offset", "slab", "stored")

    def __init__(
        self, memory: GpuMemory, slab: Holder, offset: int, shape: tuple[int, ...], stored: np.dtype[Any],
        dtype: np.dtype[Any],
    ) -> None:  # fmt: skip
        self._memory, self.slab, self.offset = memory, slab, offset
        self._shape, self.stored, self.dtype = shape, stored, dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def address(self) -> int:
        return self.slab.buffer.address + self.offset

    def numpy(self) -> Array:
        """A copy for the host, in the contract's type."""
        found = np.empty(self._shape, self.stored)
        with self._memory.lock:
            self._memory.device.use()
            self._memory.stream.download(found.ctypes.data, self.address, found.nbytes)
            self._memory.stream.synchronize()
        return found.astype(self.dtype)
