"""TensorRT-RTX: TensorRT's module with the other library, so that the manifest alone says which of them is imported."""

from __future__ import annotations

from pathlib import Path

from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import EngineOptions
from mgcc_runtime.engines.tensorrt import session
from mgcc_runtime.engines.tensorrt.features import TENSORRT_RTX
from mgcc_runtime.engines.tensorrt.session import TensorRtSession


def open_session(path: Path, spec: StageSpec, options: EngineOptions) -> TensorRtSession:
    """`session.open_session` with TensorRT-RTX."""
    return session.open_session(path, spec, options, TENSORRT_RTX)
