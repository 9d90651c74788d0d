"""ONNX Runtime on a GPU: TensorRT-RTX, TensorRT or CUDA, whichever provider is installed, and the CPU behind them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import EngineOptions
from mgcc_runtime.engines import onnxruntime as cpu

_LOG = logging.getLogger(__name__)
CPU = "CPUExecutionProvider"
#: The fastest first.
PREFERRED = ("NvTensorRTRTXExecutionProvider", "TensorrtExecutionProvider", "CUDAExecutionProvider")


def choose_providers(installed: Sequence[str]) -> tuple[str, ...]:
    """The GPU providers of these, the fastest first, and the CPU for what none of them takes."""
    return (*(name for name in PREFERRED if name in installed), CPU)


def open_session(path: Path, spec: StageSpec, options: EngineOptions) -> cpu.OrtSession:
    """Open an fp16 ONNX file on the GPU; where there is none, on the CPU, with a warning in the log."""
    providers = choose_providers(ort.get_available_providers())
    if providers == (CPU,):
        _LOG.warning(
            "stage %s was built for a GPU, but ONNX Runtime has no GPU provider here and runs it on the CPU, which is "
            "slow in fp16; `pip install 'mgcc-edge[gpu]'`, or use a bundle that was built with --target cpu", spec.name,
        )  # fmt: skip
    session = cpu.open_session(path, spec, options, providers)
    used = session.providers
    if len(providers) > 1 and used == (CPU,):
        _LOG.warning(
            "stage %s fell back to the CPU: %s could not be started; check the GPU's driver with `nvidia-smi`",
            spec.name, ", ".join(providers[:-1]),
        )  # fmt: skip
    return session
