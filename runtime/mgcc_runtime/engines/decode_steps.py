"""Decode steps of the language model, one new position at a time, replayed as CUDA graphs where that is possible.

A step launches hundreds of small kernels, and to launch them may well take longer than their work. A captured graph is
one launch, but it is bound to its shapes and addresses. The addresses are made to stand still: the cache lies in a
`CacheRing` with room for the longest context (which the engine's profiles have from the manifest), what goes in and
comes out in buffers of this file. The shapes do not: the exported graph takes a past of P positions and works out
positions and mask from that length, so a cache padded to one of a few lengths would be read as if its padding were
text, at wrong positions. A graph is therefore valid for one past length alone, and is kept for when a later request
comes to the same length: the same story drawn with another seed, an answer told again, a kiosk's fixed opening. Who
never comes to a length twice pays for no graph, and gains nothing; the first step of a text never has one, since the
prompt's cache that it reads is written where there is room. One graph for all lengths takes an export of another form:
a cache of fixed capacity, with the mask and the position as inputs.

No GPU has run this yet; buffers, addresses and the choice of graphs are tested on the host's memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import Array, Feed, Outputs, host_array
from mgcc_runtime.engines.bindings import binding, profile_for, shape_at
from mgcc_runtime.engines.cache_ring import CacheRing, Lease
from mgcc_runtime.engines.capture import Recorder, enqueue
from mgcc_runtime.engines.cuda import Buffer, free_memory_bytes
from mgcc_runtime.engines.device_memory import DeviceTensor, GpuMemory, byte_size
from mgcc_runtime.engines.engine_record import EngineRecord
from mgcc_runtime.engines.step_graphs import Places, StepGraphs
from mgcc_runtime.engines.tensorrt_features import features_of
from mgcc_runtime.errors import EngineError, StageMemoryError

_LOG = logging.getLogger(__name__)
#: The ring may take this part of the GPU's free memory, no more: stages that run later need theirs.
_SHARE_OF_FREE = 0.25

#: Makes an execution context for a profile, without activation memory; None if there is no memory for it.
MakeContext = Callable[[int], Any]


class DecodeSteps:
    """The decode steps of one engine. Calls are made under the GPU's lock, with its device in use."""

    def __init__(
        self, engine: Any, record: EngineRecord, spec: StageSpec, memory: GpuMemory, make_context: MakeContext
    ) -> None:
        self._engine, self._spec, self._memory, self._make_context = engine, spec, memory, make_context
        self._rebuild = record.rebuild
        self._of = {t.name: binding(record, spec, t.name) for t in (*spec.inputs, *spec.outputs)}
        self._past = [t for t in spec.inputs if "P" in t.shape]
        self._present = [t for t in spec.outputs if "T" in t.shape]
        self._host = [t for t in (*spec.inputs, *spec.outputs) if not {"P", "T"} & {*t.shape}]
        shapes = {t.name: shape_at(t, {"S": 1, "P": 1}) for t in spec.inputs}
        found = profile_for(record, shapes)
        self._profile = found or 0
        self.capacity = 0  # positions; 0: this engine takes no steps
        if found is not None and record.profiles:
            self.capacity = record.profiles[found].shapes[self._past[0].name][2][self._past[0].shape.index("P")]
        self.graphs = StepGraphs()
        self._recorder = Recorder(spec.name, memory.stream, features_of(record))
        self._context: Any = None
        self._ring: CacheRing | None = None
        self._buffers: dict[str, Buffer] = {}

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> Outputs | None:
        """Run a step and leave its cache in the ring. None, with nothing done, for any other call.

        That is one of several positions, one whose cache comes from elsewhere than this GPU or is not to stay there,
        and one whose place in the ring holds a cache that somebody still has.
        """
        past = self._past_of(feeds, keep)
        ring = self._open_ring() if past else None
        if ring is None:
            return None
        length = next(iter(past.values())).shape[self._past[0].shape.index("P")]
        lease = ring.claim(length + 1)
        if lease is None:
            return None
        places, stream = self._places(ring, past, length), self._memory.stream
        alive = [self._upload(t.name, feeds[t.name]) for t in self._host if t.name in feeds]
        graph = self.graphs.meet(length, places)
        if graph is not None:
            graph.launch()
        else:
            in_ring = all(places.addresses[t.name] == ring.address(p.name, length) for t, p in self._pairs())
            self._launch(length, places, capture=in_ring and self._worth(length))
        arrays = {t.name: self._fetch(t.name, places) for t in self._host if t.name not in feeds}
        stream.synchronize()
        del alive  # host arrays have to live until the copies are done
        found = {name: array.astype(self._of[name].dtype) for name, array in arrays.items()}
        return Outputs(found, self._tensors(ring, lease, places))

    def _worth(self, length: int) -> bool:
        return self._recorder.willing and self.graphs.worth(length)

    def _pairs(self) -> Any:
        return zip(self._past, self._present, strict=True)

    def _past_of(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> dict[str, DeviceTensor]:
        """The cache that a step goes on from; empty where the call is none that is taken here."""
        if {*keep} != {t.name for t in self._present}:
            return {}
        if any(feeds[t.name].shape != shape_at(t, {"S": 1}) for t in self._host if t.name in feeds):
            return {}
        found: dict[str, DeviceTensor] = {}
        for tensor in self._past:
            feed = feeds[tensor.name]
            if not isinstance(feed, DeviceTensor) or feed.stored != self._of[tensor.name].stored:
                return {}
            if feed.shape[tensor.shape.index("P")] >= self.capacity:
                return {}
            found[tensor.name] = feed
        return found

    def _open_ring(self) -> CacheRing | None:
        """The ring, made with the first step; None where it would take too much of the GPU's memory."""
        if self._ring is not None or not self.capacity:
            return self._ring
        sizes = {t.name: byte_size(shape_at(t, {"T": self.capacity}), self._of[t.name].stored) for t in self._present}
        needed, free = CacheRing.size_of(sizes), free_memory_bytes()
        try:
            if needed <= _SHARE_OF_FREE * free:
                self._ring = CacheRing(sizes)
                return self._ring
        except StageMemoryError:
            pass  # taken by another program since it was asked
        self.capacity = 0
        _LOG.info("decode steps without graphs: their cache needs %d bytes, the GPU has %d free", needed, free)
        return None

    def _places(self, ring: CacheRing, past: Mapping[str, DeviceTensor], length: int) -> Places:
        lengths = {"S": 1, "P": length, "T": length + 1}
        shapes = {t.name: shape_at(t, lengths) for t in (*self._spec.inputs, *self._spec.outputs)}
        addresses = {name: tensor.address for name, tensor in past.items()}
        addresses |= {t.name: ring.address(t.name, length + 1) for t in self._present}
        for tensor in self._host:
            if tensor.name not in self._buffers:
                size = byte_size(shapes[tensor.name], self._of[tensor.name].stored)
                self._buffers[tensor.name] = Buffer(size)
            addresses[tensor.name] = self._buffers[tensor.name].address
        scratch = self._memory.reserve(int(self._engine.device_memory_size_v2))
        return Places(shapes, addresses, (scratch.address, scratch.size))

    def _upload(self, name: str, feed: Feed) -> Array:
        """Queue the copy of an input to its buffer; returns the host array that is being copied."""
        array = np.ascontiguousarray(host_array(feed), self._of[name].stored)
        self._memory.stream.upload(self._buffers[name].address, array.ctypes.data, array.nbytes)
        return array

    def _fetch(self, name: str, places: Places) -> Array:
        """Queue the copy of an output to the host."""
        found = np.empty(places.shapes[name], self._of[name].stored)
        self._memory.stream.download(found.ctypes.data, places.addresses[name], found.nbytes)
        return found

    def _launch(self, length: int, places: Places, *, capture: bool) -> None:
        """Queue the work; to be captured, in a context of its own, which has done it once before its graph is made.

        The first launch after a change of shapes settles what depends on them, which no graph may contain.
        """
        context = self._make_context(self._profile) if capture else None
        own = context is not None
        if context is None:
            if self._context is None:
                self._context = self._make_context(self._profile)
            context = self._context
        if context is None:
            raise StageMemoryError(f"stage {self._spec.name} gets no memory on the GPU; close other programs")
        self._bind(context, places)
        self._enqueue(context)
        if not own:
            return
        graph = self._recorder.record(context)
        if graph is not None:
            self.graphs.keep(length, context, graph, places)
        else:
            self._context = context  # of use for the next steps, and its work is not done yet: it must not go now

    def _bind(self, context: Any, places: Places) -> None:
        inputs = {t.name for t in self._spec.inputs}
        for name, address in places.addresses.items():
            shape = places.shapes[name]
            taken = name not in inputs or context.set_input_shape(name, shape)
            if not taken or not context.set_tensor_address(name, address):
                raise EngineError(
                    f"stage {self._spec.name} refuses {name} of shape {shape}; run `mgcc verify`, and rebuild the "
                    f"engine with `{self._rebuild}` if it fails"
                )
        context.set_device_memory(*places.scratch)

    def _enqueue(self, context: Any) -> None:
        enqueue(context, self._memory.stream.handle, self._spec.name)

    def _tensors(self, ring: CacheRing, lease: Lease, places: Places) -> dict[str, DeviceTensor]:
        """The cache that the step wrote; its place is taken as long as one of these lives."""
        found = {}
        for tensor in self._present:
            name, of = tensor.name, self._of[tensor.name]
            found[name] = DeviceTensor(self._memory, lease, ring.offset(name), places.shapes[name], of.stored, of.dtype)
        return found

    def close(self) -> None:
        """Free graphs and buffers; a cache that somebody still has keeps its place in memory until it goes."""
        self.graphs.close()
        self._context = self._ring = self._engine = None
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()
