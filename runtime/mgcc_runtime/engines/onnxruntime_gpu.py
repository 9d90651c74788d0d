"""ONNX Runtime on a GPU: TensorRT-RTX, TensorRT or CUDA, whichever provider is installed, and the CPU behind them."""

from __future__ import annotations

import functools
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
        _warn(
            "this bundle was built for a GPU; ONNX Runtime has no GPU provider here and runs it on the CPU, which is "
            "slow in fp16; `pip install 'mgcc-edge[gpu]'`, or use a bundle that was built with --target cpu"
        )
    session = cpu.open_session(path, spec, options, providers)
    if len(providers) > 1 and session.providers == (CPU,):
        _warn(
            f"stage {spec.name} fell back to the CPU: {', '.join(providers[:-1])} could not be started; check the "
            "GPU's driver with `nvidia-smi`"
        )
    return session


@functools.cache
def _warn(text: str) -> None:
    """Once for the whole bundle, not for each of its stages."""
    _LOG.warning(text)
