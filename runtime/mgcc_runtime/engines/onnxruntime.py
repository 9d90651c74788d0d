"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from mgcc_runtime.contract import DType, StageSpec, TensorSpec
from mgcc_runtime.engines import Array, EngineOptions, Feed, Outputs
from mgcc_runtime.errors import ContractError

_ORT_TYPES = {DType.FLOAT32: "tensor(float)", DType.INT64: "tensor(int64)", DType.BOOL: "tensor(bool)"}
_NUMPY_TYPES = {_ORT_TYPES[t]: np.dtype(t.value) for t in DType}
_FATAL = 4  # errors reach the user as exceptions; the engine's own log would print them a second time


class OrtTensor:
    """A tensor in ONNX Runtime's memory; shape and type are read on demand, since each read crosses into C++."""

    __slots__ = ("value",)

    def __init__(self, value: ort.OrtValue) -> None:
        self.value = value

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape())

    @property
    def dtype(self) -> np.dtype[Any]:
        return _NUMPY_TYPES[self.value.data_type()]

    def numpy(self) -> Array:
        return np.array(self.value.numpy())


class OrtSession:
    """One stage. Feeds and outputs are OrtValues, so past keys and values are never copied to the host."""

    def __init__(self, session: ort.InferenceSession, spec: StageSpec) -> None:
        self._session = session
        self._outputs = [t.name for t in spec.outputs]

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> Outputs:
        values = {name: _ort_value(feed) for name, feed in feeds.items()}
        found = dict(zip(self._outputs, self._session.run_with_ort_values(self._outputs, values), strict=True))
        kept = {name: OrtTensor(found[name]) for name in keep}
        return Outputs({name: value.numpy() for name, value in found.items() if name not in kept}, kept)

    def close(self) -> None:
        del self._session


def _ort_value(feed: Feed) -> ort.OrtValue:
    if isinstance(feed, OrtTensor):
        return feed.value
    array = feed if isinstance(feed, np.ndarray) else feed.numpy()
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def open_session(path: Path, spec: StageSpec, options: EngineOptions) -> OrtSession:
    """Open an ONNX file on the CPU and hold its inputs and outputs against the contract."""
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL
    settings.intra_op_num_threads = options.threads
    # a memory pattern is stored for every new input shape: with a growing cache that would be one for each token
    settings.enable_mem_pattern = not any(isinstance(n, str) for t in spec.inputs for n in t.shape)
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    _check_nodes(path, spec, "input", spec.inputs, session.get_inputs())
    _check_nodes(path, spec, "output", spec.outputs, session.get_outputs())
    return OrtSession(session, spec)


def _check_nodes(path: Path, spec: StageSpec, kind: str, expected: tuple[TensorSpec, ...], found: list[Any]) -> None:
    nodes = {node.name: node for node in found}
    if set(nodes) != {t.name for t in expected}:
        raise ContractError(
            f"{path} has the {kind}s {', '.join(nodes)}, the stage {spec.name} has "
            f"{', '.join(t.name for t in expected)}; rebuild the bundle"
        )
    for tensor in expected:
        node = nodes[tensor.name]
        same = len(tensor.shape) == len(node.shape) and all(
            ours == theirs
            for ours, theirs in zip(tensor.shape, node.shape, strict=True)
            if isinstance(ours, int) and isinstance(theirs, int)
        )
        if node.type != _ORT_TYPES[tensor.dtype] or not same:
            raise ContractError(
                f"{kind} {tensor.name} of {path} is {node.type} {tuple(node.shape)}, stage {spec.name} expects "
                f"{tensor.dtype.value} {tensor.shape}; rebuild the bundle"
            )
