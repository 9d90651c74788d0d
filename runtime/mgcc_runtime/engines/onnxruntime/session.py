"""Sessions of ONNX Runtime, whatever providers they have: feeds, outputs, and which of them stay where they are.

Graphs of lower precision have an fp16 cache; the contract's callers see float32 all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from mgcc_runtime.cancelling import stopped_by
from mgcc_runtime.contract import DType, StageSpec
from mgcc_runtime.engines import Array, Feed, Outputs, host_array

CPU = "CPUExecutionProvider"
ORT_TYPES = {DType.FLOAT32: "tensor(float)", DType.INT64: "tensor(int64)", DType.BOOL: "tensor(bool)"}
HALF = "tensor(float16)"
_NUMPY_TYPES = {ORT_TYPES[t]: np.dtype(t.value) for t in DType}
_CONTRACT_TYPES = {**_NUMPY_TYPES, HALF: np.dtype(np.float32)}  # what a tensor in fp16 is to a caller


@contextmanager
def stoppable() -> Iterator[ort.RunOptions]:
    """Options of a run that ends at its next node, by an error, if the request is cancelled."""
    options = ort.RunOptions()

    def stop() -> None:
        options.terminate = True

    with stopped_by(stop):
        yield options


class OrtTensor:
    """A tensor in ONNX Runtime's memory; shape and type are read on demand, since each read crosses into C++.

    `kept_in`: as `OrtSession`'s that it comes from.
    """

    __slots__ = ("kept_in", "value")

    def __init__(self, value: ort.OrtValue, kept_in: str | None = None) -> None:
        self.value, self.kept_in = value, kept_in

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape())

    @property
    def dtype(self) -> np.dtype[Any]:
        return _CONTRACT_TYPES[self.value.data_type()]

    def numpy(self) -> Array:
        return np.array(self.value.numpy(), self.dtype)


class OrtSession:
    """One stage. Feeds and outputs are OrtValues, so past keys and values are never copied.

    `kept_in`: the memory that kept outputs stay in, as ONNX Runtime calls it; None for the host's, where all results
    land by themselves.
    """

    def __init__(self, session: ort.InferenceSession, spec: StageSpec, kept_in: str | None = None) -> None:
        self._session, self._kept_in = session, kept_in
        self._outputs = [t.name for t in spec.outputs]
        self._half = {n.name for n in (*session.get_inputs(), *session.get_outputs()) if n.type == HALF}

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> Outputs:
        values = {name: self._value(name, feed) for name, feed in feeds.items()}
        if self._kept_in is None:
            with stoppable() as run:
                results = self._session.run_with_ort_values(self._outputs, values, run)
        else:
            results = self._run_bound(values, keep, self._kept_in)
        found = dict(zip(self._outputs, results, strict=True))
        kept = {name: OrtTensor(found[name], self._kept_in) for name in keep}
        return Outputs({name: self._array(name, value) for name, value in found.items() if name not in kept}, kept)

    def _run_bound(self, values: Mapping[str, ort.OrtValue], keep: Collection[str], memory: str) -> list[ort.OrtValue]:
        """Results in the outputs' order, those in `keep` left where they were computed."""
        binding = self._session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, memory if name in keep else "cpu")
        with stoppable() as run:
            self._session.run_with_iobinding(binding, run)
        found: list[ort.OrtValue] = binding.get_outputs()
        return found

    def _value(self, name: str, feed: Feed) -> ort.OrtValue:
        """The feed as this session takes it: a tensor of a GPU's memory is of no use to one that has no GPU."""
        if isinstance(feed, OrtTensor) and feed.kept_in in (None, self._kept_in):
            return feed.value
        kind = np.float16 if name in self._half else None
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(host_array(feed), kind))

    def _array(self, name: str, value: ort.OrtValue) -> Array:
        array: Array = value.numpy()
        return array.astype(np.float32) if name in self._half else array

    @property
    def providers(self) -> tuple[str, ...]:
        """What has nodes of the graph, the fastest first; what was started, in a version that cannot say which."""
        started = tuple(self._session.get_providers())
        ask = getattr(self._session, "get_provider_graph_assignment_info", None)  # newer versions have it
        if started == (CPU,) or ask is None:
            return started
        try:
            busy = {part.ep_name for part in ask()}
        except Fail:  # not recorded: a session that was opened elsewhere
            return started
        return tuple(name for name in started if name in busy) or started

    def close(self) -> None:
        del self._session
