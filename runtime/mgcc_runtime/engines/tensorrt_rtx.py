"""TensorRT-RTX: TensorRT's module with the other library, so that the manifest alone says which of them is imported."""

from __future__ import annotations

from pathlib import Path

from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import EngineOptions, tensorrt
from mgcc_runtime.engines.tensorrt import TensorRtSession
from mgcc_runtime.engines.tensorrt_features import TENSORRT_RTX


def open_session(path: Path, spec: StageSpec, options: EngineOptions) -> TensorRtSession:
    """`tensorrt.open_session` with TensorRT-RTX."""
    return tensorrt.open_session(path, spec, options, TENSORRT_RTX)
