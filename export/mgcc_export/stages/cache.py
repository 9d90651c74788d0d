"""A finished stage in the cache, and the key of everything that it was made from.

Another weight, setting, package version or line of the exporter's source gives another key.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mgcc_calibration.cache import Cache, Entry, Form
from mgcc_calibration.source_digest import source_digest
from mgcc_export.graphs.validate import TensorParity
from mgcc_export.precision.report import LowReport
from mgcc_export.stages.stage import Stage
from mgcc_ref.config import Profile
from mgcc_runtime.bundle.folder import FileEntry

#: Packages whose version changes what is exported or how it was checked.
BUILT_WITH = ("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "transformers", "diffusers", "numpy")
#: Packages and modules whose code decides what an fp32 stage's files hold, besides the reference's.
_STEPS = (
    "mgcc_calibration.graphs.storage", "mgcc_export.graphs", "mgcc_export.stages", "mgcc_export.targets",
    "mgcc_runtime.contract",
)  # fmt: skip
_NETWORKS = "mgcc_ref.networks"


@dataclass(frozen=True)
class BuiltStage:
    """An accepted stage in the cache: its files, and how it was checked."""

    folder: Path
    files: dict[str, FileEntry]  # by their path in the bundle
    nodes: int
    weight_bytes: int
    export_s: float
    validate_s: float
    parity: list[TensorParity]
    lowered: LowReport | None = None  # of a stage that is not the plain fp32 graph
    peak_memory_bytes: int = 0  # of this process while it was made; the engine's builder counts for itself


def versions() -> dict[str, str]:
    """Installed versions of the packages that build a bundle."""
    return {name: importlib.metadata.version(name) for name in BUILT_WITH}


def stage_key(stage: Stage, profile: Profile, precision: str) -> str:
    """SHA-256 of weights, settings, package versions and source that decide what the stage's files hold."""
    digest = hashlib.sha256()
    source = source_digest(*_STEPS, *_networks(stage.module))
    for text in (stage.name, precision, repr(profile), repr(stage.spec), repr(stage.axes), repr(versions()), source):
        digest.update(text.encode() + b"\0")
    _add_weights(digest, stage.module)
    return digest.hexdigest()


def _networks(module: nn.Module) -> list[str]:
    """Names of the reference's packages and modules in this stage: all of the networks, and what else it is made of.

    `config.py` is left out: what it says about the stage is in the profile. So are other packages, which have versions.
    """
    names = {type(part).__module__ for part in module.modules()}
    outside = {name for name in names if name.startswith("mgcc_ref.") and not name.startswith(f"{_NETWORKS}.")}
    return [_NETWORKS, *sorted(outside)]


def _add_weights(digest: Any, module: nn.Module) -> None:
    """Parameters and all buffers, also those that are not saved with the weights."""
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()], key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def stage_cache(root: Path) -> Cache[BuiltStage]:
    """The cache of finished stages; of each the current entry is kept, and the one before for going back."""
    return Cache(root, Form(_to_json, _read), newest=2)


def _to_json(built: BuiltStage) -> dict[str, Any]:
    values = asdict(built)
    del values["folder"]
    return values


def _read(entry: Entry) -> BuiltStage:
    values = {name: value for name, value in entry.values.items() if name not in ("parity", "lowered")}
    parity = [TensorParity(**one) for one in entry.values["parity"]]
    low = entry.values["lowered"]
    lowered = LowReport.from_json(low) if low else None
    return BuiltStage(folder=entry.folder, files=dict(entry.files), parity=parity, lowered=lowered, **values)
