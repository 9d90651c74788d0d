"""TensorRT and TensorRT-RTX: the same calls, but for a few that only one of them has.

Cache and latents stay on the GPU between calls, in the engine's own type; all stages share one activation buffer;
stages of fixed shape (the denoising step, the solver's, the decoder of latents) are replayed as CUDA graphs. So are the
language model's decode steps, of which each length has a graph of its own, where a length comes back:
`decode_steps.py`.
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import Array, EngineOptions, Feed, Outputs, host_array
from mgcc_runtime.engines.bindings import Binding, binding, profile_for
from mgcc_runtime.engines.capture import Recorder, enqueue
from mgcc_runtime.engines.cuda import Buffer, Graph
from mgcc_runtime.engines.decode_steps import DecodeSteps
from mgcc_runtime.engines.device_memory import NUMPY_TYPES, DeviceTensor, GpuMemory, SlabPlan, byte_size
from mgcc_runtime.engines.engine_record import EngineRecord, read_record
from mgcc_runtime.engines.engine_validity import LIBRARIES, check_device, check_header, check_library, check_maker
from mgcc_runtime.engines.kernel_cache import KernelCache
from mgcc_runtime.engines.tensorrt_features import TENSORRT, Feature, features_of
from mgcc_runtime.errors import BundleError, ContractError, EngineError, StageMemoryError

_LOG = logging.getLogger(__name__)
_LOADING = threading.Lock()  # two first sessions at once would each make a GpuMemory, with a lock of its own


@functools.cache
def gpu_memory() -> GpuMemory:
    """The memory of the first GPU, shared by all sessions of the process."""
    return GpuMemory()


class TensorRtSession:
    """One engine. Feeds of the host are copied in, fp32 to fp16 where the engine wants it; kept outputs stay."""

    def __init__(
        self, engine: Any, contexts: list[Any], record: EngineRecord, spec: StageSpec, kernels: KernelCache | None,
        steps: DecodeSteps | None = None,
    ) -> None:  # fmt: skip
        self._engine, self._contexts, self._record, self._spec = engine, contexts, record, spec
        self._kernels, self._steps = kernels, steps
        self._memory = gpu_memory()
        self._memory.enter()
        self._recorder = Recorder(spec.name, self._memory.stream, features_of(record))
        self._inputs = [binding(record, spec, t.name) for t in spec.inputs]
        self._outputs = [binding(record, spec, t.name) for t in spec.outputs]
        self._fixed = not any(isinstance(n, str) for t in (*spec.inputs, *spec.outputs) for n in t.shape)
        self._buffers: dict[str, Buffer] = {}  # of the session: what comes from elsewhere and goes there
        self._steady: dict[str, Array] = {}  # what lies in the buffers of steady inputs
        self._graph: Graph | None = None
        self._graph_memory = 0  # address of the activation buffer that the graph was captured with
        self._runs = 0

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> Outputs:
        with self._memory.lock:
            self._memory.device.use()
            if self._steps is not None and (step := self._steps.run(feeds, keep)) is not None:
                return step
            context = self._contexts[self._profile_for(feeds)]
            alive = [self._bind_input(context, binding, feeds[binding.name]) for binding in self._inputs]
            kept = self._bind_outputs(context, keep)
            self._execute(context)
            if self._fixed:
                self._move_out(kept)
            arrays = {b.name: self._fetch(context, b) for b in self._outputs if b.name not in kept}
            self._memory.stream.synchronize()
            del alive  # host arrays have to live until the copies are done
        types = {b.name: b.dtype for b in self._outputs}
        return Outputs({name: array.astype(types[name]) for name, array in arrays.items()}, kept)

    def _profile_for(self, feeds: Mapping[str, Feed]) -> int:
        """The narrowest profile that holds these shapes; ContractError if none does."""
        found = profile_for(self._record, {name: tuple(feed.shape) for name, feed in feeds.items()})
        if found is None:
            shapes = ", ".join(f"{name} {tuple(feeds[name].shape)}" for name in self._record.profiles[0].shapes)
            raise ContractError(
                f"stage {self._spec.name} got {shapes}, outside of every profile that its engine was built with; "
                f"shorten the request, or rebuild it with `{self._record.rebuild}`"
            )
        return found

    def _bind_input(self, context: Any, binding: Binding, feed: Feed) -> Array | None:
        """Tell the context where the input lies; returns the host array that is being copied, if it is one.

        A stage of fixed shape reads from buffers of its own alone, whose addresses its CUDA graph has taken over.
        """
        if isinstance(feed, DeviceTensor) and feed.stored == binding.stored:
            address = feed.address
            if self._fixed:
                size = byte_size(feed.shape, feed.stored)
                address = self._buffer(binding.name, size).address
                self._steady.pop(binding.name, None)
                self._memory.stream.copy(address, feed.address, size)
            self._place(context, binding.name, address, feed.shape)
            return None
        array = np.ascontiguousarray(host_array(feed), binding.stored)
        buffer = self._buffer(binding.name, array.nbytes)
        if not self._lies_there(binding.name, array):
            self._memory.stream.upload(buffer.address, array.ctypes.data, array.nbytes)
            if self._fixed and binding.name in self._spec.steady:
                self._steady[binding.name] = array.copy()
        self._place(context, binding.name, buffer.address, array.shape)
        return array

    def _lies_there(self, name: str, array: Array) -> bool:
        """Whether the buffer of a steady input holds these values: compared, so that nobody has to say when a request
        begins.
        """
        known = self._steady.get(name)
        return known is not None and np.array_equal(known, array)

    def _place(self, context: Any, name: str, address: int, shape: tuple[int, ...]) -> None:
        if not context.set_input_shape(name, shape) or not context.set_tensor_address(name, address):
            raise EngineError(
                f"stage {self._spec.name} refuses {name} of shape {shape}; run `mgcc verify`, and rebuild the engine "
                f"with `{self._record.rebuild}` if it fails"
            )

    def _bind_outputs(self, context: Any, keep: Collection[str]) -> dict[str, DeviceTensor]:
        """Give every output a place: those in `keep` in one new slab, the others in the session's buffers.

        A stage of fixed shape writes into its buffers in any case, and what is kept is moved out of them later.
        """
        shapes = {b.name: tuple(context.get_tensor_shape(b.name)) for b in self._outputs}
        sizes = {b.name: byte_size(shapes[b.name], b.stored) for b in self._outputs}
        plan = SlabPlan.of({b.name: sizes[b.name] for b in self._outputs if b.name in keep})
        kept = {}
        slab = self._memory.slab(plan.size) if plan.offsets else None
        for b in self._outputs:
            if slab is not None and b.name in keep:
                offset = plan.offsets[b.name]
                kept[b.name] = DeviceTensor(self._memory, slab, offset, shapes[b.name], b.stored, b.dtype)
            in_slab = b.name in kept and not self._fixed
            address = kept[b.name].address if in_slab else self._buffer(b.name, sizes[b.name]).address
            context.set_tensor_address(b.name, address)
        return kept

    def _move_out(self, kept: Mapping[str, DeviceTensor]) -> None:
        """Queue the copies of outputs from the buffers, which the next run writes over, to where they are kept."""
        for name, tensor in kept.items():
            self._memory.stream.copy(
                tensor.address, self._buffers[name].address, byte_size(tensor.shape, tensor.stored)
            )

    def _buffer(self, name: str, size: int) -> Buffer:
        """The session's buffer for a tensor; it only grows, so a stage of fixed shape keeps its addresses."""
        held = self._buffers.get(name)
        if held is None or held.size < size:
            held = self._buffers[name] = Buffer(size)
        return held

    def _execute(self, context: Any) -> None:
        """Queue the engine's work, of a stage of fixed shape as a graph.

        It is captured in the second run: the first one may still set things up.
        """
        size = int(self._engine.device_memory_size_v2)
        scratch = self._memory.reserve(size)
        context.set_device_memory(scratch.address, scratch.size)
        if self._graph is not None and self._graph_memory != scratch.address:
            self._graph.close()  # another stage made the shared buffer grow
            self._graph = None
        if self._fixed and self._graph is None and self._runs:
            self._graph = self._recorder.record(context)
            self._graph_memory = scratch.address
        if self._graph is not None:
            self._graph.launch()
        else:
            enqueue(context, self._memory.stream.handle, self._spec.name)
        self._runs += 1

    def _fetch(self, context: Any, binding: Binding) -> Array:
        """Queue the copy of an output to the host."""
        found = np.empty(tuple(context.get_tensor_shape(binding.name)), binding.stored)
        self._memory.stream.download(found.ctypes.data, self._buffers[binding.name].address, found.nbytes)
        return found

    @property
    def providers(self) -> tuple[str, ...]:
        return (LIBRARIES[self._record.library],)

    def close(self) -> None:
        with self._memory.lock:
            self._memory.device.use()
            self._memory.stream.synchronize()
            if self._kernels is not None:
                self._kernels.save()
            if self._graph is not None:
                self._graph.close()
            if self._steps is not None:
                self._steps.close()
            for buffer in self._buffers.values():
                buffer.free()
            self._buffers.clear()
            self._contexts.clear()  # contexts before their engine
            self._engine = None
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
    _check_tensors(path, record, spec)
    with _LOADING:
        memory = gpu_memory()
    memory.device.use()
    check_device(path, record, memory.device.compute_capability, memory.device.name)
    with memory.lock:  # the stream is everybody's: work of ours in it would spoil a capture that is under way
        return _make_session(trt, _load(trt, path, record), record, spec)


def _load(trt: Any, path: Path, record: EngineRecord) -> Any:
    """The engine of a plan; what is read of the file does not outlive this call."""
    runtime, plan = trt.Runtime(_logger(trt)), path.read_bytes()
    check_header(path, record, trt, runtime, plan)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BundleError(
            f"engine {path} cannot be loaded by {record.library} {record.version}; rebuild it with `{record.rebuild}`"
        )
    return engine


def _make_session(trt: Any, engine: Any, record: EngineRecord, spec: StageSpec) -> TensorRtSession:
    """The engine with a context for each of its profiles; called under the GPU's lock, with its device in use."""
    memory = gpu_memory()
    compiles = Feature.DEVICE_COMPILER in features_of(record)
    kernels = KernelCache.open(record, memory.device) if compiles else None

    def make_context(number: int) -> Any:
        context = _plain_context(trt, engine) if kernels is None else _rtx_context(trt, engine, kernels, spec)
        if context is not None and number and not context.set_optimization_profile_async(number, memory.stream.handle):
            raise EngineError(f"stage {spec.name} refuses its profile {number}; rebuild it with `{record.rebuild}`")
        return context

    contexts = [make_context(number) for number in range(max(1, len(record.profiles)))]
    if None in contexts:
        raise StageMemoryError(f"stage {spec.name} gets no memory on {memory.device.name}; close other programs")
    memory.stream.synchronize()
    cached = any("P" in t.shape for t in spec.inputs)
    steps = DecodeSteps(engine, record, spec, memory, make_context) if cached else None
    return TensorRtSession(engine, contexts, record, spec, kernels, steps)


def _plain_context(trt: Any, engine: Any) -> Any:
    """A context of TensorRT, without activation memory of its own."""
    return engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)


def _rtx_context(trt: Any, engine: Any, kernels: KernelCache, spec: StageSpec) -> Any:
    """A context of TensorRT-RTX: our memory, compiled kernels kept over restarts, no kernel swapped behind a graph."""
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    strategies = trt.DynamicShapesKernelSpecializationStrategy
    config.dynamic_shapes_kernel_specialization_strategy = getattr(strategies, specialisation(spec))
    config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED  # the session captures them itself
    kernels.attach(config)
    return engine.create_execution_context(config)


def specialisation(spec: StageSpec) -> str:
    """When TensorRT-RTX compiles kernels for the very shapes it is given, in its own word.

    A stage of fixed shape: at once, since kernels that arrive in the background would invalidate a captured graph. A
    growing cache has another shape for each token: not at all, or each would wait for kernels of its own, or lose its
    graph to those that come later. Other lengths come back, and no graph is captured of them: in the background.
    """
    axes = {n for t in (*spec.inputs, *spec.outputs) for n in t.shape if isinstance(n, str)}
    if not axes:
        return "EAGER"
    return "NONE" if "P" in axes else "LAZY"


def _check_tensors(path: Path, record: EngineRecord, spec: StageSpec) -> None:
    """ContractError unless the engine has the contract's tensors; an fp32 tensor may be fp16 inside."""
    for kind, found, expected in (("input", record.inputs, spec.inputs), ("output", record.outputs, spec.outputs)):
        by_name = {t.name: t for t in found}
        if set(by_name) != {t.name for t in expected}:
            raise ContractError(
                f"engine {path} has the {kind}s {', '.join(by_name) or 'none'}, stage {spec.name} has "
                f"{', '.join(t.name for t in expected)}; rebuild it with `{record.rebuild}`"
            )
        for tensor in expected:
            theirs = by_name[tensor.name]
            ours = NUMPY_TYPES.get(theirs.dtype)
            same = len(theirs.shape) == len(tensor.shape) and all(
                a == b for a, b in zip(tensor.shape, theirs.shape, strict=True) if isinstance(a, int) and b >= 0
            )
            fits = ours == np.dtype(tensor.dtype.value) or (tensor.dtype.value, ours) == (
                "float32",
                np.dtype("float16"),
            )
            if not same or not fits:
                raise ContractError(
                    f"{kind} {tensor.name} of {path} is {theirs.dtype} {theirs.shape}, stage {spec.name} expects "
                    f"{tensor.dtype.value} {tensor.shape}; rebuild it with `{record.rebuild}`"
                )


@functools.cache
def _logger(trt: Any) -> Any:
    """TensorRT's messages go to our log, its errors too: they reach the user as exceptions."""

    class Forward(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            _LOG.debug("%s: %s", severity, text)

    return Forward()
