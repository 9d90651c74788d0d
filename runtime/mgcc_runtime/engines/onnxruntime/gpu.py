"""ONNX Runtime on a GPU: TensorRT-RTX, TensorRT or CUDA, whichever provider is installed, and the CPU behind them.

TensorRT-RTX's comes as a plug-in of the plain onnxruntime (package onnxruntime-ep-nv-tensorrt-rtx), the other two in
onnxruntime-gpu.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.caches import writable_cache
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import EngineOptions
from mgcc_runtime.engines.onnxruntime import cpu
from mgcc_runtime.engines.onnxruntime.session import CPU, OrtSession
from mgcc_runtime.errors import MgccError
from mgcc_runtime.files import native_path
from mgcc_runtime.names import weights_file

_LOG = logging.getLogger(__name__)
TENSORRT, TENSORRT_RTX = "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
#: The fastest first.
PREFERRED = (TENSORRT_RTX, TENSORRT, "CUDAExecutionProvider")
_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
#: Majors of TensorRT that a provider may be linked with; onnxruntime-gpu 1.20 to 1.31 is with 10.
_TENSORRT_MAJORS = (10, 11, 12)
#: ONNX Runtime's name of the GPU's memory, the same for all three.
GPU_MEMORY = "cuda"


def choose_providers(installed: Sequence[str], spec: StageSpec) -> tuple[str, ...]:
    """The GPU providers of these, the fastest first, and the CPU for what none of them takes.

    TensorRT's is left out for stages of varying lengths: it builds another engine, which takes minutes, whenever a
    length leaves the range that it has seen, and so for every token of a growing cache. Beside TensorRT-RTX's it is
    left out, too: ONNX Runtime refuses to open both in one session.
    """
    varying = any(isinstance(n, str) for t in (*spec.inputs, *spec.outputs) for n in t.shape)
    left_out = {TENSORRT} if varying or TENSORRT_RTX in installed else set()
    return (*(name for name in PREFERRED if name in installed and name not in left_out), CPU)


def provider_options(name: str, folder: Path | None) -> dict[str, str]:
    """What a provider keeps over restarts, in `folder`: engines, or the kernels that it compiled for this GPU.

    Nothing where there is no such folder.

    No precision is asked for, `trt_fp16_enable` least of all. Without such an option ONNX Runtime gives TensorRT the
    graph strongly typed, each tensor in the type that it has there, fp16 included; with one it is weakly typed, and
    TensorRT may round to fp16 what our graphs keep in fp32 (microsoft/onnxruntime, pull request 19695 of 2024, and
    `network_flags` in tensorrt_execution_provider.cc; from TensorRT 9 on, and onnxruntime-gpu 1.20 has 10). Options
    that are given here also stand before ORT_TENSORRT_FP16_ENABLE in the environment, as its documentation says.
    """
    if folder is None:
        return {}
    if name == TENSORRT:
        return {"trt_engine_cache_enable": "1", "trt_engine_cache_path": native_path(folder)}
    if name == TENSORRT_RTX:
        return {"nv_runtime_cache_path": native_path(folder)}
    return {}


@functools.cache
def tensorrt_is_here() -> bool:
    """Whether TensorRT's own library can be loaded.

    onnxruntime-gpu lists TensorRT's provider on any machine. Asked for without the library, ONNX Runtime writes two
    lines to the standard error for each stage, and then does without (1.31 on an H200, 2026-11-29).
    """
    form = "nvinfer_{}.dll" if sys.platform == "win32" else "libnvinfer.so.{}"
    for major in _TENSORRT_MAJORS:
        try:
            ctypes.CDLL(form.format(major))
        except OSError:
            continue
        return True
    return False


@functools.cache
def plugged_in() -> tuple[Any, ...]:
    """The devices of TensorRT-RTX's plug-in, registered once a process; none where it is absent or cannot be loaded."""
    try:
        plugin = importlib.import_module(_PLUGIN)
    except ImportError:
        return ()
    name = str(plugin.get_ep_name())
    try:
        ort.register_execution_provider_library(name, str(plugin.get_library_path()))
    except (Fail, RuntimeError, OSError) as error:
        _warn(
            f"the package {_PLUGIN} is installed and cannot be used ({str(error).splitlines()[0][:300]}); check the "
            "GPU's driver with `nvidia-smi`"
        )
        return ()
    return tuple(device for device in ort.get_ep_devices() if device.ep_name == name)


@dataclass(frozen=True)
class _Attempt:
    """One way of opening a session."""

    names: tuple[str, ...]  # of the providers, the CPU's last
    providers: Sequence[cpu.Provider] = (CPU,)
    plugin: cpu.Plugin | None = None


def open_session(path: Path, spec: StageSpec, options: EngineOptions) -> OrtSession:
    """Open an ONNX file on the GPU; where that cannot be, with the next provider or on the CPU, with a warning."""
    failed: list[str] = []
    for attempt in _attempts(path, spec):
        memory = GPU_MEMORY if len(attempt.names) > 1 else None
        try:
            session = cpu.open_session(path, spec, options, attempt.providers, memory, attempt.plugin)
        except MgccError:
            raise  # the graph is not this stage's, whatever plays it
        except Exception as error:
            if attempt.names == (CPU,):
                raise
            failed.append(f"{attempt.names[0]} ({(str(error) or type(error).__name__).splitlines()[0][:300]})")
            continue
        _tell(spec.name, attempt, failed, session)
        return session
    raise AssertionError("the last attempt is the CPU's, which opens or raises")


def _attempts(path: Path, spec: StageSpec) -> Iterator[_Attempt]:
    """The plug-in, all other providers together, then without the first of them, and so on to the CPU alone."""
    installed = [name for name in ort.get_available_providers() if name != TENSORRT or tensorrt_is_here()]
    devices, names = plugged_in(), choose_providers(installed, spec)
    keeping = bool(devices) or TENSORRT in names or TENSORRT_RTX in names
    folder = writable_cache(_kept_engines(path)) if keeping else None
    if devices:
        yield _Attempt((TENSORRT_RTX, CPU), plugin=cpu.Plugin(devices, provider_options(TENSORRT_RTX, folder)))
    for first in range(len(names)):
        providers: list[cpu.Provider] = []
        for name in names[first:]:
            found = provider_options(name, folder)
            providers.append((name, found) if found else name)
        yield _Attempt(names[first:], providers)


def _tell(stage: str, attempt: _Attempt, failed: Sequence[str], session: OrtSession) -> None:
    """Warn of what does not run where it was built to."""
    if failed:
        _warn(
            f"stage {stage} could not be opened with {', nor with '.join(failed)}, and runs on "
            f"{', '.join(session.providers)}; check the GPU's driver with `nvidia-smi`"
        )
    elif attempt.names == (CPU,):
        _warn(
            "this bundle was built for a GPU; ONNX Runtime has no GPU provider here and runs it on the CPU, which is "
            "slow in fp16; `pip install 'mgcc-edge[gpu]'`, or use a bundle that was built with --target cpu"
        )
    elif session.providers == (CPU,) and attempt.plugin is None:
        _warn(
            f"stage {stage} fell back to the CPU: {', '.join(attempt.names[:-1])} could not be started; check the "
            "GPU's driver with `nvidia-smi`"
        )


def _kept_engines(path: Path) -> str:
    """Where in the cache engines of this graph are kept: a folder for its content and its weights' file, if it has one.

    TensorRT's cache knows an engine by the graph's names alone, and would play it with other weights.
    """
    key, weights = sha256_of(path)[:32], path.with_name(weights_file(path.name))
    if weights.is_file():  # of gigabytes, and hashed already when the bundle was opened
        status = weights.stat()
        key += f"-{status.st_size:x}-{status.st_mtime_ns:x}"
    return f"onnxruntime/{key}"


@functools.cache
def _warn(text: str) -> None:
    """Once for the whole bundle, not for each of its stages."""
    _LOG.warning(text)
