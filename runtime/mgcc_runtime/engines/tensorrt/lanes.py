"""The way of one tensor of a stage between host and GPU: a buffer at either end."""

from __future__ import annotations

from typing import Any

import numpy as np

from mgcc_runtime.engines import Array
from mgcc_runtime.engines.tensorrt.cuda_memory import Buffer, PinnedBuffer
from mgcc_runtime.engines.tensorrt.device_memory import GpuMemory
from mgcc_runtime.engines.tensorrt.slabs import byte_size, slab_size
from mgcc_runtime.errors import StageMemoryError

#: A larger tensor is copied from and to memory that is not pinned: what is pinned no other program can have.
_MOST_PINNED = 32 * 2**20


class Lane:
    """Buffers of one tensor, `stored` in the engine's type; they only grow, so that a fixed shape keeps its address.

    Calls are made under the GPU's lock, with its device in use.
    """

    def __init__(self, memory: GpuMemory, stored: np.dtype[Any]) -> None:
        self._memory, self._stored = memory, stored
        self._device: Buffer | None = None
        self._pinned: PinnedBuffer | None = None
        self._sent: Array | None = None  # what the last copy reads, until it was waited for
        self._waits = -1  # of the memory, when the last copy was queued

    def room(self, size: int) -> Buffer:
        """The buffer on the GPU, at least `size` bytes."""
        held = self._device
        if held is None or held.size < size:
            enough = _grown(size, held)
            held = self._device = None  # first, or both would have to find room
            held = self._device = self._memory.allocate(enough)
        return held

    def send(self, array: Array) -> int:
        """Queue the copy of an array to the GPU, in the engine's type; returns where it will lie there."""
        size = byte_size(array.shape, self._stored)
        address = self.room(size).address
        if self._waits == self._memory.waits:  # the copy before may still read what is written over now
            self._memory.wait()
        if (pinned := self._staging(size)) is not None:
            self._sent = pinned.view(array.shape, self._stored)
            np.copyto(self._sent, array)
        else:
            self._sent = np.ascontiguousarray(array, self._stored)
        self._memory.stream.upload(address, self._sent.ctypes.data, size)
        self._waits = self._memory.waits
        return address

    def fetch(self, shape: tuple[int, ...]) -> Array:
        """Queue the copy of what lies on the GPU; the array has the values after the next wait, and keeps them until
        the lane is used again.
        """
        size = byte_size(shape, self._stored)
        pinned = self._staging(size)
        found = np.empty(shape, self._stored) if pinned is None else pinned.view(shape, self._stored)
        self._memory.stream.download(found.ctypes.data, self.room(size).address, size)
        return found

    def free(self) -> None:
        """Give back both buffers; to be called when no work is under way."""
        for buffer in (self._device, self._pinned):
            if buffer is not None:
                buffer.free()
        self._device = self._pinned = self._sent = None

    def _staging(self, size: int) -> PinnedBuffer | None:
        """Pinned memory of at least `size` bytes; None where there is none to be had."""
        if not 0 < size <= _MOST_PINNED:
            return None
        held = self._pinned
        if held is None or held.size < size:
            enough = _grown(size, held)
            held = self._pinned = None
            try:
                held = self._pinned = self._memory.allocate_pinned(enough)
            except StageMemoryError:
                return None  # slower, and no worse
        return held


def _grown(size: int, held: Buffer | PinnedBuffer | None) -> int:
    """How much to allocate: a tensor that has grown once, such as a prompt, will again."""
    return size if held is None else slab_size(size)
