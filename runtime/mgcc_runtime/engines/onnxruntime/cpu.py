"""ONNX Runtime, on the CPU unless other providers are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from mgcc_runtime.contract import PAST_LENGTH, DType, StageSpec, TensorSpec
from mgcc_runtime.device.cpu_features import sums_bytes_in_16_bits
from mgcc_runtime.engines import EngineOptions
from mgcc_runtime.engines.onnxruntime.in_place import InPlaceSession
from mgcc_runtime.engines.onnxruntime.session import CPU, HALF, ORT_TYPES, OrtSession
from mgcc_runtime.errors import ContractError
from mgcc_runtime.files import native_path

_RECORD_NODES = "session.record_ep_graph_assignment_info"  # which provider got which nodes
#: Lets it compute int8 weights as uint8 ones, which its kernels for such CPUs multiply exactly.
_EXACT_BYTES = "session.x64quantprecision"
_SHARED = "Attempt to replace the existing tensor"  # what 1.32 says where it should do so twice with one weight
_STOP_SPINNING = "session.force_spinning_stop"  # at the end of a run; within it threads wait for work by spinning
_FATAL = 4  # errors reach the user as exceptions; the engine's own log would print them a second time


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
        return InPlaceSession(session, spec, path)
    on_gpu = gpu_memory is not None and len(session.get_providers()) > 1
    return OrtSession(session, spec, gpu_memory if on_gpu else None)


def _accepted(tensor: TensorSpec) -> tuple[str, ...]:
    """ONNX Runtime's types that stand for a tensor of the contract."""
    return (ORT_TYPES[tensor.dtype], HALF) if tensor.dtype is DType.FLOAT32 else (ORT_TYPES[tensor.dtype],)


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
