"""TensorRT and TensorRT-RTX: the same calls, but for a few that not every release has.

Cache and latents stay on the GPU between calls, in the engine's own type; all stages share one activation buffer;
stages of fixed shape (the denoising step, the solver's, the decoder of latents) are replayed as CUDA graphs. So are the
language model's decode steps, of which each length has a graph of its own, where a length comes back:
`decode_steps.py`. A call waits for the GPU only where it brings values to the host.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import Array, EngineOptions, Feed, Outputs, host_array
from mgcc_runtime.engines.tensorrt.bindings import Binding, binding, profile_for
from mgcc_runtime.engines.tensorrt.capture import Recorder
from mgcc_runtime.engines.tensorrt.contexts import Context
from mgcc_runtime.engines.tensorrt.cuda_stream import Graph
from mgcc_runtime.engines.tensorrt.decode_steps import DecodeSteps
from mgcc_runtime.engines.tensorrt.device_memory import DeviceTensor, GpuMemory
from mgcc_runtime.engines.tensorrt.features import TENSORRT, features_of
from mgcc_runtime.engines.tensorrt.lanes import Lane
from mgcc_runtime.engines.tensorrt.loading import Engine, check_tensors
from mgcc_runtime.engines.tensorrt.origin import origin_remark, warn_once
from mgcc_runtime.engines.tensorrt.record import read_record
from mgcc_runtime.engines.tensorrt.slabs import SlabPlan, byte_size
from mgcc_runtime.engines.tensorrt.validity import LIBRARIES, check_device, check_library, check_maker
from mgcc_runtime.errors import ContractError

_LOADING = threading.Lock()  # two first sessions at once would each make a GpuMemory, with a lock of its own


@functools.cache
def gpu_memory() -> GpuMemory:
    """The memory of the first GPU, shared by all sessions of the process."""
    return GpuMemory()


class TensorRtSession:
    """One engine. Feeds of the host are copied in, fp32 to fp16 where the engine wants it; kept outputs stay."""

    def __init__(self, engine: Engine, spec: StageSpec, memory: GpuMemory, options: EngineOptions) -> None:
        """Called under the GPU's lock, with its device in use."""
        self._engine, self._spec, self._memory = engine, spec, memory
        record = engine.record
        self._recorder = Recorder(spec.name, memory.stream, features_of(record))
        self._inputs = [binding(record, spec, t.name) for t in spec.inputs]
        self._outputs = [binding(record, spec, t.name) for t in spec.outputs]
        self._lanes = {b.name: Lane(memory, b.stored) for b in (*self._inputs, *self._outputs)}
        self._fixed = not any(isinstance(n, str) for t in (*spec.inputs, *spec.outputs) for n in t.shape)
        cached = any("P" in t.shape for t in spec.inputs)
        self._steps = DecodeSteps(engine, spec, memory, options.decode_graphs) if cached else None
        self._steady: dict[str, Array] = {}  # what lies in the lanes of steady inputs
        self._graph: Graph | None = None
        self._graph_scratch = (0, 0)  # address and size of the activation buffer that it was captured with
        memory.reserve(engine.scratch_bytes)  # now, or the largest stage's first run would move it under the others

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> Outputs:
        with self._memory.lock:
            self._memory.device.use()
            if self._steps is not None and (step := self._steps.run(feeds, keep)) is not None:
                return step
            context = self._engine.contexts[self._profile_for(feeds)]
            for b in self._inputs:
                self._bind_input(context, b, feeds[b.name])
            kept = self._bind_outputs(context, keep)
            self._execute(context)
            if self._fixed:
                self._move_out(kept)
            fetched = {
                b: self._lanes[b.name].fetch(context.shape_of(b.name)) for b in self._outputs if b.name not in kept
            }
            if fetched:
                self._memory.wait()
            self._engine.used()
            return Outputs({b.name: array.astype(b.dtype) for b, array in fetched.items()}, kept)

    def _profile_for(self, feeds: Mapping[str, Feed]) -> int:
        """The narrowest profile that holds these shapes; ContractError if none does."""
        record = self._engine.record
        found = profile_for(record, {name: tuple(feed.shape) for name, feed in feeds.items()})
        if found is None:
            shapes = ", ".join(f"{name} {tuple(feeds[name].shape)}" for name in record.profiles[0].shapes)
            raise ContractError(
                f"stage {self._spec.name} got {shapes}, outside of every profile that its engine was built with; "
                f"shorten the request, or rebuild it with `{record.rebuild}`"
            )
        return found

    def _bind_input(self, context: Context, binding: Binding, feed: Feed) -> None:
        """Tell the context where the input lies, and queue its copy if it is the host's.

        A stage of fixed shape reads from buffers of its own alone, whose addresses its CUDA graph has taken over.
        """
        name, shape = binding.name, tuple(feed.shape)
        lane = self._lanes[name]
        if isinstance(feed, DeviceTensor) and feed.stored == binding.stored:
            address = feed.address
            if self._fixed:
                size = byte_size(shape, feed.stored)
                address = lane.room(size).address
                self._steady.pop(name, None)
                self._memory.stream.copy(address, feed.address, size)
            context.set_input(name, address, shape)
            return
        array = host_array(feed)
        if self._lies_there(name, array):
            return
        self._steady.pop(name, None)  # until the copy is queued it is not known what lies there
        context.set_input(name, lane.send(array), shape)
        if self._fixed and name in self._spec.steady:
            self._steady[name] = array.copy()

    def _lies_there(self, name: str, array: Array) -> bool:
        """Whether the buffer of a steady input holds these values: compared, so that nobody has to say when a request
        begins.
        """
        known = self._steady.get(name)
        return known is not None and np.array_equal(known, array)

    def _bind_outputs(self, context: Context, keep: Collection[str]) -> dict[str, DeviceTensor]:
        """Give every output a place: those in `keep` in one new slab, the others in the session's buffers.

        A stage of fixed shape writes into its buffers in any case, and what is kept is moved out of them later.
        """
        shapes = {b.name: context.shape_of(b.name) for b in self._outputs}
        sizes = {b.name: byte_size(shapes[b.name], b.stored) for b in self._outputs}
        plan = SlabPlan.of({b.name: sizes[b.name] for b in self._outputs if b.name in keep})
        kept = {}
        slab = self._memory.slab(plan.size) if plan.offsets else None
        for b in self._outputs:
            if slab is not None and b.name in keep:
                offset = plan.offsets[b.name]
                kept[b.name] = DeviceTensor(self._memory, slab, offset, shapes[b.name], b.stored, b.dtype)
            in_slab = b.name in kept and not self._fixed
            address = kept[b.name].address if in_slab else self._lanes[b.name].room(sizes[b.name]).address
            context.set_address(b.name, address)
        return kept

    def _move_out(self, kept: Mapping[str, DeviceTensor]) -> None:
        """Queue the copies of outputs from the buffers, which the next run writes over, to where they are kept."""
        for name, tensor in kept.items():
            size = byte_size(tensor.shape, tensor.stored)
            self._memory.stream.copy(tensor.address, self._lanes[name].room(size).address, size)

    def _execute(self, context: Context) -> None:
        """Queue the engine's work, of a stage of fixed shape as a graph.

        It is captured when the context has run with the same places: the first run may still set things up.
        """
        buffer = self._memory.reserve(self._engine.scratch_bytes)
        scratch = (buffer.address, buffer.size)
        context.set_scratch(*scratch)
        if self._graph is not None and self._graph_scratch != scratch:
            self._graph.close()  # another stage made the shared buffer grow
            self._graph = None
        if self._fixed and self._graph is None and context.settled and self._recorder.willing():
            self._graph = self._recorder.record(context)
            self._graph_scratch = scratch
        if self._graph is not None:
            self._graph.launch()
        else:
            context.enqueue(self._memory.stream.handle)

    @property
    def providers(self) -> tuple[str, ...]:
        return (LIBRARIES[self._engine.record.library],)

    def close(self) -> None:
        with self._memory.lock:
            self._memory.device.use()
            self._memory.wait()
            if self._graph is not None:
                self._graph.close()
            if self._steps is not None:
                self._steps.close()
            for lane in self._lanes.values():
                lane.free()
            self._engine.close()
            self._memory.leave()


def open_session(path: Path, spec: StageSpec, options: EngineOptions, library: str = TENSORRT) -> TensorRtSession:
    """Hold the engine's record against this machine, then load it; BundleError says what does not fit.

    `library` is the module that the manifest's engine stands for, tensorrt or tensorrt_rtx, and the only one that is
    imported, whatever the record names; ImportError if it is not installed.
    """
    record = read_record(path)
    check_maker(path, record, library)
    trt = importlib.import_module(library)
    check_library(path, record, str(trt.__version__))
    check_tensors(path, record, spec)
    with _LOADING:
        memory = gpu_memory()
    memory.device.use()
    check_device(path, record, memory.device.compute_capability, memory.device.name)
    if remark := origin_remark(record, memory.device):
        warn_once(remark)
    with memory.lock:  # the stream is everybody's: work of ours in it would spoil a capture that is under way
        memory.enter()
        try:
            return TensorRtSession(Engine(trt, path, record, spec, memory), spec, memory, options)
        except BaseException:
            memory.leave()
            raise
