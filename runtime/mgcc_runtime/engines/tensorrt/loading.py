"""A TensorRT engine's file to an engine with contexts, by the calls that its library's release has."""

from __future__ import annotations

import functools
import logging
import mmap
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines.tensorrt.contexts import Context
from mgcc_runtime.engines.tensorrt.device_memory import NUMPY_TYPES, GpuMemory
from mgcc_runtime.engines.tensorrt.features import Feature, features_of
from mgcc_runtime.engines.tensorrt.kernel_cache import KernelCache
from mgcc_runtime.engines.tensorrt.record import EngineRecord
from mgcc_runtime.engines.tensorrt.validity import check_header
from mgcc_runtime.errors import BundleError, ContractError, EngineError, StageMemoryError

_LOG = logging.getLogger(__name__)


class Engine:
    """A loaded engine, and its contexts: one for each profile, more where they are asked for.

    Calls are made under the GPU's lock, with its device in use.
    """

    def __init__(self, trt: Any, path: Path, record: EngineRecord, spec: StageSpec, memory: GpuMemory) -> None:
        """Load it; BundleError where the library refuses it, StageMemoryError where the GPU has no room for it."""
        self.record, self._trt, self._spec, self._memory = record, trt, spec, memory
        self._offered = features_of(record)
        self._engine = _load(trt, path, record, self._offered)
        compiles = Feature.DEVICE_COMPILER in self._offered
        self.kernels = KernelCache.open(record, memory.device) if compiles else None
        self.scratch_bytes = int(self._engine.device_memory_size_v2)
        found = [self.make_context(number) for number in range(max(1, len(record.profiles)))]
        self.contexts = [context for context in found if context is not None]
        if len(self.contexts) < len(found):
            raise StageMemoryError(f"stage {spec.name} gets no memory on {memory.device.name}; close other programs")
        memory.device.wait()  # whatever the library queued, in streams of its own too

    def make_context(self, profile: int) -> Context | None:
        """A context for a profile, without activation memory of its own; None if there is no memory for it."""
        made = self._engine.create_execution_context(self._how())
        if made is None:
            return None
        if profile and not made.set_optimization_profile_async(profile, self._memory.stream.handle):
            raise EngineError(
                f"stage {self._spec.name} refuses its profile {profile}; rebuild it with `{self.record.rebuild}`"
            )
        return Context(made, self._spec.name, self.record.rebuild)

    def _how(self) -> Any:
        """What contexts are made with: our memory; where the library compiles kernels on the device, those that were
        compiled before, and none swapped behind a captured graph.
        """
        ours = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.kernels is None:
            return ours
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(ours)
        strategies = self._trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = getattr(strategies, specialisation(self._spec))
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.DISABLED  # the session captures them itself
        self.kernels.attach(config)
        return config

    def used(self) -> None:
        """Its work was queued once more, by any of its contexts: kernels that were compiled for it are kept."""
        if self.kernels is not None:
            self.kernels.used()

    def close(self) -> None:
        """Keep what was compiled; let contexts go before their engine."""
        if self.kernels is not None:
            self.kernels.save()
        self.contexts.clear()
        self._engine = None


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


def check_tensors(path: Path, record: EngineRecord, spec: StageSpec) -> None:
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


def _load(trt: Any, path: Path, record: EngineRecord, offered: Collection[Feature]) -> Any:
    """The engine of a file, which is mapped and not read: read, it would be in memory twice, on a Jetson in the one
    memory that the GPU has too. What is mapped the system takes back when it needs the room.
    """
    runtime = trt.Runtime(_logger(trt))
    if not path.stat().st_size:
        raise BundleError(f"engine {path} is empty; copy the bundle again, or rebuild it with `{record.rebuild}`")
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # closed with the last view of it
    check_header(path, record, trt, runtime, data)
    source = _reader(trt, data) if Feature.STREAM_READER in offered else data
    engine = runtime.deserialize_cuda_engine(source)
    if engine is None:
        raise BundleError(
            f"engine {path} cannot be loaded by {record.library} {record.version}; rebuild it with `{record.rebuild}`"
        )
    return engine


def _reader(trt: Any, data: memoryview) -> Any:
    """The data as a stream, from which the library copies straight to the GPU."""

    class Reader(trt.IStreamReaderV2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IStreamReaderV2.__init__(self)
            self._at = 0

        def read(self, num_bytes: int, stream: int) -> memoryview:
            found = data[self._at : self._at + num_bytes]
            self._at += len(found)
            return found

        def seek(self, offset: int, where: Any) -> bool:
            start = {trt.SeekPosition.SET: 0, trt.SeekPosition.CUR: self._at, trt.SeekPosition.END: len(data)}[where]
            if not 0 <= start + offset <= len(data):
                return False
            self._at = start + offset
            return True

    return Reader()


@functools.cache
def _logger(trt: Any) -> Any:
    """TensorRT's messages go to our log, its errors too: they reach the user as exceptions."""

    class Forward(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            _LOG.debug("%s: %s", severity, text)

    return Forward()
