"""Whether an engine may be loaded on this machine, asked before a byte of it is: version, platform, GPU."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgcc_runtime.engines.tensorrt.features import TENSORRT, TENSORRT_RTX, Feature, features_of
from mgcc_runtime.engines.tensorrt.record import EngineRecord
from mgcc_runtime.errors import BundleError

#: The libraries that may load engines, by their module -> in words.
LIBRARIES: Mapping[str, str] = {TENSORRT: "TensorRT", TENSORRT_RTX: "TensorRT-RTX"}
#: GPUs newer than TensorRT-RTX's oldest that it knows nothing of: `ComputeCapability` of its interface has no name for
#: them. 9.0 was tried: 1.7 refuses its own engines on an H200, those built there for that very GPU too.
RTX_LEAVES_OUT = frozenset({"9.0", "10.0", "10.3", "11.0"})
#: What TensorRT-RTX finds wrong with an engine's header -> in words.
_DIAGNOSES: Mapping[str, str] = {
    "VERSION_MISMATCH": "it is of another TensorRT-RTX version",
    "UNSUPPORTED_CC": "it was not built for this GPU's compute capability",
    "OLD_CUDA_DRIVER": "the CUDA driver is too old for it",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory for it",
    "MALFORMED_ENGINE": "its file is damaged",
    "CUDA_ERROR": "CUDA reports an error",
}


def check_maker(path: Path, record: EngineRecord, library: str) -> None:
    """BundleError unless the engine was built by the library that the manifest names for it."""
    if record.library != library:
        raise BundleError(
            f"engine {path} was built by {record.library!r} as its record says, the manifest names {library}; copy the "
            "bundle again, or build it again"
        )


def check_library(path: Path, record: EngineRecord, version: str) -> None:
    """BundleError unless the engine was built by this version on this kind of machine."""
    name = LIBRARIES[record.library]
    if version != record.version:
        raise BundleError(
            f"engine {path} was built by {name} {record.version}, this machine has {version}; rebuild it with "
            f"`{record.rebuild}`, or install {name} {record.version}"
        )
    here = f"{platform.system().lower()}-{platform.machine().lower()}"
    # TensorRT-RTX documents its engines as portable between Windows and Linux on x86-64
    portable = record.library == TENSORRT_RTX and _processor(here) == _processor(record.platform)
    if here != record.platform and not portable:
        raise BundleError(
            f"engine {path} was built for {record.platform}, this machine is {here}; rebuild it here with "
            f"`{record.rebuild}`"
        )


def check_device(path: Path, record: EngineRecord, compute_capability: str, gpu: str) -> None:
    """BundleError unless the engine runs on a GPU of this compute capability."""
    ours, theirs = _numbers(compute_capability), _numbers(record.compute_capability)
    if record.library == TENSORRT_RTX and compute_capability in RTX_LEAVES_OUT:
        raise BundleError(
            f"engine {path} is one of TensorRT-RTX, which compiles no kernels for the compute capability "
            f"{compute_capability} of {gpu}; use a bundle built with --target tensorrt or --target ort-gpu"
        )
    if record.library == TENSORRT_RTX and ours < theirs:
        raise BundleError(
            f"engine {path} runs on GPUs from compute capability {record.compute_capability} on, {gpu} has "
            f"{compute_capability}; use a newer GPU, or a bundle built with --target cpu"
        )
    if record.library == TENSORRT and ours != theirs:
        raise BundleError(
            f"engine {path} was built for a GPU of compute capability {record.compute_capability}, {gpu} has "
            f"{compute_capability}; rebuild it on this device with `{record.rebuild}`"
        )


def check_header(path: Path, record: EngineRecord, trt: Any, runtime: Any, plan: memoryview) -> None:
    """The library's own opinion on the first bytes of the engine, where it has one; BundleError if it is invalid."""
    if Feature.HEADER_CHECK not in features_of(record):
        return
    validity, diagnostics = runtime.get_engine_validity(plan[: runtime.engine_header_size])
    if validity != trt.EngineValidity.INVALID:
        return
    mask = int(diagnostics)
    found = [text for name, text in _DIAGNOSES.items() if mask & int(getattr(trt.EngineInvalidityDiagnostics, name))]
    why = " and ".join(found) or f"diagnosis {mask}"
    raise BundleError(f"engine {path} cannot run here: {why}; rebuild it with `{record.rebuild}`")


def _processor(text: str) -> str:
    """linux-x86_64 and windows-amd64 are the same processor."""
    return "x86_64" if text.endswith(("x86_64", "amd64")) else text.rpartition("-")[2]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
