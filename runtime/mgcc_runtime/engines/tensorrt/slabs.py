"""Memory of the GPU for what calls leave there: one allocation for all tensors that a call keeps, used again."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from mgcc_runtime.engines.tensorrt.cuda_memory import Buffer

ALIGNMENT = 256  # TensorRT's for tensor addresses
_LEAST_SLAB = 1 << 16
#: So much may lie idle in any case; beyond it, twice what was last asked for.
_LEAST_IDLE = 64 * 2**20


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

    def __init__(self, pool: SlabPool, buffer: Buffer) -> None:
        self._pool, self.buffer = pool, buffer

    def __del__(self) -> None:
        self._pool.take_back(self.buffer)


class SlabPool:
    """Slabs that wait to be used again, by size.

    The calls that decode a text alternate between two slabs of a size, and a cache that grows takes larger ones from
    time to time. What lies idle is therefore bounded by what is asked for now: slabs of sizes that were asked for long
    ago are freed first. All calls but `take_back` are made under the GPU's lock, with its device in use.
    """

    def __init__(self, allocate: Callable[[int], Buffer]) -> None:
        self._allocate = allocate
        self._idle: OrderedDict[int, list[Buffer]] = OrderedDict()  # by size, the one last asked for at the end
        self._returned: deque[Buffer] = deque()
        self._open = False

    def take(self, size: int) -> Slab:
        """A slab of at least `size` bytes; StageMemoryError if there is no room."""
        self._open = True
        self._collect()
        rounded = slab_size(size)
        waiting = self._idle.setdefault(rounded, [])
        self._idle.move_to_end(rounded)
        buffer = waiting.pop() if waiting else self._allocate(rounded)
        self._shrink(max(_LEAST_IDLE, 2 * rounded))
        return Slab(self, buffer)

    def take_back(self, buffer: Buffer) -> None:
        """Keep a slab's memory for the next of its size, or free it if no stage is open any more.

        May come from any thread at any time, also while a CUDA graph is captured, which to free memory would spoil.
        """
        if self._open:
            self._returned.append(buffer)
        else:
            buffer.free()

    def trim(self) -> int:
        """Free all that lies idle; how many bytes that were."""
        self._collect()
        return self._shrink(0)

    def close(self) -> None:
        """Free all that lies idle, and from now on what comes back, until a slab is taken again."""
        self._open = False
        self.trim()

    @property
    def idle_bytes(self) -> int:
        """What `trim` would free."""
        self._collect()
        return sum(size * len(buffers) for size, buffers in self._idle.items())

    def _collect(self) -> None:
        while self._returned:
            buffer = self._returned.popleft()
            self._idle.setdefault(buffer.size, []).append(buffer)

    def _shrink(self, bound: int) -> int:
        """Free idle slabs, those of the sizes least lately asked for first, until no more than `bound` bytes are."""
        excess, freed = self.idle_bytes - bound, 0
        for size, buffers in list(self._idle.items()):
            while buffers and freed < excess:
                buffers.pop().free()
                freed += size
            if not buffers:
                del self._idle[size]
        return freed
