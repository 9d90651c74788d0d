"""ONNX Runtime on a GPU: TensorRT-RTX, TensorRT or CUDA, whichever provider is installed, and the CPU behind them.

TensorRT-RTX's comes as a plug-in of the plain onnxruntime (package onnxruntime-ep-nv-tensorrt-rtx), the other two in
onnxruntime-gpu.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from mgcc_runtime.bundle import sha256_of
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import EngineOptions
from mgcc_runtime.engines import onnxruntime as cpu
from mgcc_runtime.engines.kernel_cache import cache_folder

_LOG = logging.getLogger(__name__)
CPU = "CPUExecutionProvider"
TENSORRT, TENSORRT_RTX = "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
#: The fastest first.
PREFERRED = (TENSORRT_RTX, TENSORRT, "CUDAExecutionProvider")
_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
#: ONNX Runtime's name of the GPU's memory, the same for all three.
GPU_MEMORY = "cuda"


def choose_providers(installed: Sequence[str], spec: StageSpec) -> tuple[str, ...]:
    """The GPU providers of these, the fastest first, and the CPU for what none of them takes.

    TensorRT's is left out for stages of varying lengths: it builds another engine, which takes minutes, whenever a
    length leaves the range that it has seen, and so for every token of a growing cache.
    """
    varying = any(isinstance(n, str) for t in (*spec.inputs, *spec.outputs) for n in t.shape)
    return (*(name for name in PREFERRED if name in installed and not (varying and name == TENSORRT)), CPU)


def provider_options(name: str, folder: Path) -> dict[str, str]:
    """What a provider keeps over restarts, in `folder`: engines, or the kernels that it compiled for this GPU."""
    if name == TENSORRT:
        return {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
    if name == TENSORRT_RTX:
        return {"nv_runtime_cache_path": str(folder)}
    return {}


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


def open_session(path: Path, spec: StageSpec, options: EngineOptions) -> cpu.OrtSession:
    """Open an ONNX file on the GPU; where there is none, on the CPU, with a warning in the log."""
    if devices := plugged_in():
        folder = _kept_engines(path)
        folder.mkdir(parents=True, exist_ok=True)
        plugin = cpu.Plugin(devices, provider_options(TENSORRT_RTX, folder))
        return cpu.open_session(path, spec, options, gpu_memory=GPU_MEMORY, plugin=plugin)
    names = choose_providers(ort.get_available_providers(), spec)
    if names == (CPU,):
        _warn(
            "this bundle was built for a GPU; ONNX Runtime has no GPU provider here and runs it on the CPU, which is "
            "slow in fp16; `pip install 'mgcc-edge[gpu]'`, or use a bundle that was built with --target cpu"
        )
        return cpu.open_session(path, spec, options)
    folder = _kept_engines(path)
    providers: list[cpu.Provider] = []
    for name in names:
        found = provider_options(name, folder)
        if found:
            folder.mkdir(parents=True, exist_ok=True)
        providers.append((name, found) if found else name)
    session = cpu.open_session(path, spec, options, providers, GPU_MEMORY)
    if session.providers == (CPU,):
        _warn(
            f"stage {spec.name} fell back to the CPU: {', '.join(names[:-1])} could not be started; check the "
            "GPU's driver with `nvidia-smi`"
        )
    return session


def _kept_engines(path: Path) -> Path:
    """Where engines of this graph are kept: a folder for its content and its weights' file, if it has one.

    TensorRT's cache knows an engine by the graph's names alone, and would play it with other weights.
    """
    key, weights = sha256_of(path)[:32], path.with_name(f"{path.name}.data")
    if weights.is_file():  # of gigabytes, and hashed already when the bundle was opened
        status = weights.stat()
        key += f"-{status.st_size:x}-{status.st_mtime_ns:x}"
    return cache_folder() / "onnxruntime" / key


@functools.cache
def _warn(text: str) -> None:
    """Once for the whole bundle, not for each of its stages."""
    _LOG.warning(text)
