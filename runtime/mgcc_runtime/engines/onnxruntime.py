"""ONNX Runtime, on the CPU unless other providers are given.

Graphs of lower precision have an fp16 cache; the contract's callers see float32 all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from mgcc_runtime.contract import PAST_LENGTH, DType, StageSpec, TensorSpec
from mgcc_runtime.cpu_features import sums_bytes_in_16_bits
from mgcc_runtime.engines import Array, EngineOptions, Feed, Outputs, host_array
from mgcc_runtime.errors import ContractError
from mgcc_runtime.files import native_path

_ORT_TYPES = {DType.FLOAT32: "tensor(float)", DType.INT64: "tensor(int64)", DType.BOOL: "tensor(bool)"}
_HALF = "tensor(float16)"
_NUMPY_TYPES = {_ORT_TYPES[t]: np.dtype(t.value) for t in DType}
_CONTRACT_TYPES = {**_NUMPY_TYPES, _HALF: np.dtype(np.float32)}  # what a tensor in fp16 is to a caller
CPU = "CPUExecutionProvider"
_RECORD_NODES = "session.record_ep_graph_assignment_info"  # which provider got which nodes
#: Lets it compute int8 weights as uint8 ones, which its kernels for such CPUs multiply exactly.
_EXACT_BYTES = "session.x64quantprecision"
_SHARED = "Attempt to replace the existing tensor"  # what 1.32 says where it should do so twice with one weight
_STOP_SPINNING = "session.force_spinning_stop"  # at the end of a run; within it threads wait for work by spinning
_FATAL = 4  # errors reach the user as exceptions; the engine's own log would print them a second time


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
        self._half = {n.name for n in (*session.get_inputs(), *session.get_outputs()) if n.type == _HALF}

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> Outputs:
        values = {name: self._value(name, feed) for name, feed in feeds.items()}
        if self._kept_in is None:
            results = self._session.run_with_ort_values(self._outputs, values)
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
        self._session.run_with_iobinding(binding)
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


@dataclass(frozen=True)
class Plugin:
    """A provider in a library of its own: its devices here (`ort.OrtEpDevice`), and its options."""

    devices: Sequence[Any]
    options: Mapping[str, str]


#: A provider's name, alone or with options.
Provider: TypeAlias = "str | tuple[str, Mapping[str, str]]"


def cpu_settings(threads: int = 0) -> ort.SessionOptions:
    """Settings of every session that computes on the CPU: 8-bit products are exact whatever the CPU.

    Where a CPU sums products of unsigned by signed bytes in 16 bits, ONNX Runtime is told to take unsigned weights,
    which costs a third of the time and no accuracy (100 positions by 576 x 1,536: 1.03 and 1.32 ms; in fp32 2.24).
    It would do so on CPUs with VNNI, too, which need no such thing. Weights within 64 steps of zero stay as they are.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL
    settings.intra_op_num_threads = threads
    if sums_bytes_in_16_bits():
        settings.add_session_config_entry(_EXACT_BYTES, "1")
    return settings


def open_session(
    path: Path,
    spec: StageSpec,
    options: EngineOptions,
    providers: Sequence[Provider] = (CPU,),
    gpu_memory: str | None = None,
    plugin: Plugin | None = None,
) -> OrtSession:
    """Open an ONNX file with these providers and hold its inputs and outputs against the contract.

    Kept outputs stay in `gpu_memory` where a provider other than the CPU's could be started. `plugin`, a provider that
    is no part of ONNX Runtime, stands in place of `providers`; the CPU is always behind it.
    """
    settings = cpu_settings(options.threads)
    # a session's idle threads would spin on for a while and take a core from the next stage's: a turn of 415 ms took
    # 325 without that, on two cores; with no spinning at all, 479
    settings.add_session_config_entry(_STOP_SPINNING, "1")
    # a memory pattern is stored for every new input shape: with a growing cache that would be one for each token
    settings.enable_mem_pattern = not any(isinstance(n, str) for t in spec.inputs for n in t.shape)
    if plugin is not None or tuple(providers) != (CPU,):
        settings.add_session_config_entry(_RECORD_NODES, "1")
    if plugin is not None:
        settings.add_provider_for_devices(list(plugin.devices), dict(plugin.options))
    # a list of providers would be taken in the plug-in's place
    named = {} if plugin is not None else {"providers": list(providers)}
    # its own fall-back knows no plug-ins and prints to standard output, where a command's JSON goes
    try:
        session = ort.InferenceSession(native_path(path), settings, enable_fallback=0, **named)
    except Fail as error:
        if sums_bytes_in_16_bits() and _SHARED in str(error):
            raise ContractError(
                f"layers of {path} share 8-bit weights of the full range, which ONNX Runtime cannot multiply exactly "
                "on this CPU (it has no VNNI); rebuild the bundle, which gives each layer its own"
            ) from None
        raise
    given = session.get_inputs()
    in_place = any(node.name == PAST_LENGTH for node in given)
    _check_nodes(path, spec, "input", spec.inputs, [node for node in given if node.name != PAST_LENGTH])
    _check_nodes(path, spec, "output", spec.outputs, session.get_outputs())
    if in_place and session.get_providers() != [CPU]:
        raise ContractError(
            f"{path} writes its cache in place in the host's memory, which is for the engine onnxruntime on the CPU, "
            f"not for {session.get_providers()[0]}; rebuild the bundle for this target"
        )
    if in_place:
        from mgcc_runtime.engines.onnxruntime_in_place import InPlaceSession

        return InPlaceSession(session, spec, path)
    on_gpu = gpu_memory is not None and len(session.get_providers()) > 1
    return OrtSession(session, spec, gpu_memory if on_gpu else None)


def _accepted(tensor: TensorSpec) -> tuple[str, ...]:
    """ONNX Runtime's types that stand for a tensor of the contract."""
    return (_ORT_TYPES[tensor.dtype], _HALF) if tensor.dtype is DType.FLOAT32 else (_ORT_TYPES[tensor.dtype],)


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
        if node.type not in _accepted(tensor) or not same:
            raise ContractError(
                f"{kind} {tensor.name} of {path} is {node.type} {tuple(node.shape)}, stage {spec.name} expects "
                f"{tensor.dtype.value} {tensor.shape}; rebuild the bundle"
            )
