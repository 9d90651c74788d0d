"""What all stages on a GPU share: its stream, one activation buffer, slabs for what is kept, and whose turn it is."""

from __future__ import annotations

import threading
from typing import Any, Protocol

import numpy as np

from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines import Array
from mgcc_runtime.engines.tensorrt.cuda_memory import Buffer, PinnedBuffer, free_memory_bytes, total_memory_bytes
from mgcc_runtime.engines.tensorrt.cuda_stream import Stream
from mgcc_runtime.engines.tensorrt.slabs import Slab, SlabPool
from mgcc_runtime.errors import StageMemoryError

#: TensorRT's word for a type -> numpy's.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "half": np.dtype(np.float16),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "bool": np.dtype(np.bool_),
}


class GpuMemory:
    """Of one device: its stream, the activation buffer that all stages take turns with, and a pool of slabs.

    `lock` is held for a whole run of a stage: stages share the activation buffer, so no two may run at once. The stream
    keeps their order, so that a stage whose results stay on the GPU need not be waited for.
    """

    def __init__(self) -> None:
        self.device = Device.first()
        self.stream = Stream()
        self.lock = threading.RLock()
        self.activations: Buffer | None = None
        self.waits = 0  # how often all queued work was waited for
        self._slabs = SlabPool(self.allocate)
        self._users = 0

    def allocate(self, size: int) -> Buffer:
        """New memory of the GPU; StageMemoryError if there is no room, also after what lies idle was given back."""
        try:
            return Buffer(size, self.device.context)
        except StageMemoryError:
            self.wait()
            if not self._slabs.trim():
                raise
        return Buffer(size, self.device.context)

    def allocate_pinned(self, size: int) -> PinnedBuffer:
        """New memory of the host for copies; StageMemoryError if there is no room."""
        return PinnedBuffer(size, self.device.context)

    def reserve(self, size: int) -> Buffer:
        """The activation buffer, at least `size` bytes; it only grows, to what the largest stage needs."""
        held = self.activations
        if held is not None and held.size >= size:
            return held
        if held is not None:
            self.activations = None
            self.wait()
            held.free()
        self.activations = self.allocate(size)
        return self.activations

    def slab(self, size: int) -> Slab:
        """A slab of at least `size` bytes, one that was given back if there is one."""
        return self._slabs.take(size)

    def wait(self) -> None:
        """Wait until all queued work is done."""
        self.stream.synchronize()
        self.waits += 1

    def free_bytes(self) -> int:
        """What could be had now, idle slabs given back."""
        return free_memory_bytes(self.device) + self._slabs.idle_bytes

    def total_bytes(self) -> int:
        """All memory that the GPU has."""
        return total_memory_bytes()

    def enter(self) -> None:
        self._users += 1

    def leave(self) -> None:
        """The last stage to close frees what is shared."""
        self._users -= 1
        if self._users == 0:
            with self.lock:
                self.wait()
                self._slabs.close()
                if self.activations is not None:
                    self.activations.free()
                    self.activations = None


class Holder(Protocol):
    """What keeps a tensor's memory from being used for another while the tensor lives: a slab, or another place."""

    @property
    def buffer(self) -> Buffer: ...


class DeviceTensor:
    """A tensor in the GPU's memory. `dtype` is that of the contract, which `numpy()` gives; fp16 may be stored.

    What makes its values may still be under way, in the stream that everything which reads them is queued in, too.
    """

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
            self._memory.wait()
        return found.astype(self.dtype)
