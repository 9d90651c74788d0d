"""Places of fixed address on the GPU for the cache that decode steps read and write."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

from mgcc_runtime.engines.tensorrt.cuda_memory import Buffer
from mgcc_runtime.engines.tensorrt.device_memory import GpuMemory
from mgcc_runtime.engines.tensorrt.slabs import SlabPlan

_PLACES = 2


class Lease:
    """Held by every tensor of a cache that lies in the ring; its place is free when the last of them is gone."""

    __slots__ = ("__weakref__", "buffer")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer


class CacheRing:
    """Two places for all layers' keys and values, each with room for the longest context.

    An engine packs a cache of T positions densely, (1, H_kv, T, d), so it cannot be extended where it lies: a step
    reads P positions and writes all P + 1 somewhere else. A cache of T positions lies in place T % 2. So the addresses
    of a step follow from its P alone, whichever request it belongs to, which is what a captured graph asks for.

    A cache stays an immutable value to its callers: a place is given out only while nobody holds a tensor in it.
    """

    def __init__(self, memory: GpuMemory, sizes: Mapping[str, int]) -> None:
        """`sizes`: bytes of each tensor at the longest context. StageMemoryError if the GPU has no room."""
        self._plan = SlabPlan.of(sizes)
        self._buffers = [memory.allocate(self._plan.size) for _ in range(_PLACES)]
        self._leases: list[weakref.ref[Lease] | None] = [None] * _PLACES

    @staticmethod
    def size_of(sizes: Mapping[str, int]) -> int:
        """Bytes of a ring for tensors of these sizes."""
        return _PLACES * SlabPlan.of(sizes).size

    def claim(self, length: int) -> Lease | None:
        """The place for a cache of `length` positions; None while a tensor in it is held."""
        held = self._leases[length % _PLACES]
        if held is not None and held() is not None:
            return None
        lease = Lease(self._buffers[length % _PLACES])
        self._leases[length % _PLACES] = weakref.ref(lease)
        return lease

    def offset(self, name: str) -> int:
        """Where in a place the tensor begins, at every length."""
        return self._plan.offsets[name]

    def address(self, name: str, length: int) -> int:
        """Where the tensor of a cache of `length` positions begins."""
        return self._buffers[length % _PLACES].address + self._plan.offsets[name]
