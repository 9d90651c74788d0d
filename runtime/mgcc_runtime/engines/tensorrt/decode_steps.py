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
a cache of fixed capacity that the graph writes in place, with the mask and the position as inputs, which TensorRT 10.15
and TensorRT-RTX 1.7 can. Whether that is faster only a GPU can say: tests/gpu/test_in_place.py does.

No GPU has run this yet; buffers, addresses and the choice of graphs are tested on the host's memory. Whether graphs
save time is therefore measured where they run, and they are given up where they do not (`DecodeGraphs`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping

from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import DecodeGraphs, Feed, Outputs, host_array
from mgcc_runtime.engines.tensorrt.bindings import binding, profile_for, shape_at
from mgcc_runtime.engines.tensorrt.cache_ring import CacheRing, Lease
from mgcc_runtime.engines.tensorrt.capture import Recorder
from mgcc_runtime.engines.tensorrt.contexts import Context
from mgcc_runtime.engines.tensorrt.device_memory import DeviceTensor, GpuMemory
from mgcc_runtime.engines.tensorrt.features import features_of
from mgcc_runtime.engines.tensorrt.lanes import Lane
from mgcc_runtime.engines.tensorrt.loading import Engine
from mgcc_runtime.engines.tensorrt.slabs import byte_size
from mgcc_runtime.engines.tensorrt.step_graphs import SHARE_OF_MEMORY, Places, Saving, StepGraphs
from mgcc_runtime.errors import StageMemoryError

_LOG = logging.getLogger(__name__)
#: The ring may take this part of the GPU's free memory, no more: stages that run later need theirs.
_SHARE_OF_FREE = 0.25
#: After so many steps without the ring it is asked again whether there is room now.
_ASK_AGAIN = 64


class DecodeSteps:
    """The decode steps of one engine. Calls are made under the GPU's lock, with its device in use."""

    def __init__(self, engine: Engine, spec: StageSpec, memory: GpuMemory, graphs: DecodeGraphs) -> None:
        self._engine, self._spec, self._memory = engine, spec, memory
        record = engine.record
        self._of = {t.name: binding(record, spec, t.name) for t in (*spec.inputs, *spec.outputs)}
        self._past = [t for t in spec.inputs if "P" in t.shape]
        self._present = [t for t in spec.outputs if "T" in t.shape]
        self._host_inputs = [t for t in spec.inputs if "P" not in t.shape]
        self._host_outputs = [t for t in spec.outputs if "T" not in t.shape]
        found = profile_for(record, {t.name: shape_at(t, {"S": 1, "P": 1}) for t in spec.inputs})
        self._profile = found or 0
        self.capacity = 0  # positions; 0: this engine takes no steps
        if found is not None and record.profiles:
            self.capacity = record.profiles[found].shapes[self._past[0].name][2][self._past[0].shape.index("P")]
        self.graphs = StepGraphs(budget_bytes=int(SHARE_OF_MEMORY * memory.total_bytes()))
        self._saving = Saving() if graphs is DecodeGraphs.MEASURED else None
        self._captures = graphs is not DecodeGraphs.NEVER
        self._recorder = Recorder(spec.name, memory.stream, features_of(record))
        self._context: Context | None = None
        self._ring: CacheRing | None = None
        self._refused = 0  # steps to go until room for the ring is asked for again
        self._lanes = {t.name: Lane(memory, self._of[t.name].stored) for t in (*self._host_inputs, *self._host_outputs)}

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
        started_s = time.perf_counter()
        places = self._places(ring, past, length)
        for tensor in self._host_inputs:
            self._lanes[tensor.name].send(host_array(feeds[tensor.name]))
        graph = self.graphs.meet(length, places)
        captured = False
        if graph is not None:
            graph.launch()
        else:
            captured = self._captures and self._in_ring(ring, past, length) and self.graphs.worth(length)
            captured = captured and self._recorder.willing()
            self._launch(length, places, capture=captured)
        arrays = {t.name: self._lanes[t.name].fetch(places.shapes[t.name]) for t in self._host_outputs}
        self._memory.wait()
        self._engine.used()
        if not captured:
            self._judge(time.perf_counter() - started_s, replayed=graph is not None)
        found = {name: array.astype(self._of[name].dtype) for name, array in arrays.items()}
        return Outputs(found, self._tensors(ring, lease, places))

    def _judge(self, spent_s: float, *, replayed: bool) -> None:
        """Take a step's time into account; give graphs up where it shows that they are of no use.

        That is judged once, while steps of both kinds are made in turn: what came long before says little.
        """
        if self._saving is None:
            return
        self._saving.note(spent_s, replayed=replayed)
        worth_it = self._saving.is_worth_it()
        if worth_it is None:
            return
        self._saving, self._captures = None, worth_it
        if not worth_it:
            self.graphs.close()
            _LOG.info("decode steps are no faster as CUDA graphs here, and are launched kernel by kernel")

    def _in_ring(self, ring: CacheRing, past: Mapping[str, DeviceTensor], length: int) -> bool:
        """Whether the cache that a step reads lies where every cache of its length does."""
        pairs = zip(self._past, self._present, strict=True)
        return all(past[t.name].address == ring.address(p.name, length) for t, p in pairs)

    def _past_of(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> dict[str, DeviceTensor]:
        """The cache that a step goes on from; empty where the call is none that is taken here."""
        if {*keep} != {t.name for t in self._present}:
            return {}
        if any(feeds[t.name].shape != shape_at(t, {"S": 1}) for t in self._host_inputs):
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
        """The ring, made with the first step that there is room for it; None while it would take too much of the GPU's
        memory, which is asked again from time to time.
        """
        if self._ring is not None or not self.capacity:
            return self._ring
        if self._refused:
            self._refused -= 1
            return None
        sizes = {t.name: byte_size(shape_at(t, {"T": self.capacity}), self._of[t.name].stored) for t in self._present}
        needed, free = CacheRing.size_of(sizes), self._memory.free_bytes()
        try:
            if needed <= _SHARE_OF_FREE * free:
                self._ring = CacheRing(self._memory, sizes)
                return self._ring
        except StageMemoryError:
            pass  # taken by another program since it was asked
        self._refused = _ASK_AGAIN
        _LOG.info("decode steps without graphs for now: their cache needs %d bytes, the GPU has %d free", needed, free)
        return None

    def _places(self, ring: CacheRing, past: Mapping[str, DeviceTensor], length: int) -> Places:
        buffer = self._memory.reserve(self._engine.scratch_bytes)
        scratch = (buffer.address, buffer.size)
        known = self.graphs.places_at(length)
        if known is not None and known.scratch == scratch and self._in_ring(ring, past, length):
            return known
        lengths = {"S": 1, "P": length, "T": length + 1}
        shapes = {t.name: shape_at(t, lengths) for t in (*self._spec.inputs, *self._spec.outputs)}
        addresses = {name: tensor.address for name, tensor in past.items()}
        addresses |= {t.name: ring.address(t.name, length + 1) for t in self._present}
        for name, lane in self._lanes.items():
            addresses[name] = lane.room(byte_size(shapes[name], self._of[name].stored)).address
        return Places(shapes, addresses, scratch)

    def _launch(self, length: int, places: Places, *, capture: bool) -> None:
        """Queue the work; to be captured, in a context of its own, which has done it once before its graph is made.

        The first launch after a change of shapes settles what depends on them, which no graph may contain.
        """
        before = self._memory.free_bytes() if capture else 0
        own = (self.graphs.spare_context() or self._engine.make_context(self._profile)) if capture else None
        context = own or self._shared_context()
        for tensor in self._spec.inputs:
            context.set_input(tensor.name, places.addresses[tensor.name], places.shapes[tensor.name])
        for tensor in self._spec.outputs:
            context.set_address(tensor.name, places.addresses[tensor.name])
        context.set_scratch(*places.scratch)
        context.enqueue(self._memory.stream.handle)
        if own is None:
            return
        graph = self._recorder.record(own)
        if graph is not None:
            self.graphs.keep(length, own, graph, places, max(0, before - self._memory.free_bytes()))
        else:
            self._context = own  # of use for the next steps, and its work is not done yet: it must not go now

    def _shared_context(self) -> Context:
        """The context of the steps that have no graph; StageMemoryError if there is no memory for it."""
        if self._context is None:
            self._context = self._engine.make_context(self._profile)
        if self._context is None:
            raise StageMemoryError(f"stage {self._spec.name} gets no memory on the GPU; close other programs")
        return self._context

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
        self._context = self._ring = None
        for lane in self._lanes.values():
            lane.free()
