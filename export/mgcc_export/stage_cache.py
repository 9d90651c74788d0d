"""Finished stages, kept under a key of everything that they were made from.

So a killed build goes on with the stages already done, and nothing stale is ever reused: another weight,
setting, package version or line of the exporter's source gives another key.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from mgcc_export.low_report import LowReport
from mgcc_export.stages import Stage
from mgcc_export.validate import TensorParity
from mgcc_ref.config import Profile
from mgcc_runtime import contract
from mgcc_runtime.bundle import FileEntry, sha256_of
from mgcc_runtime.errors import InputError
from mgcc_runtime.reading import Numbers, read_json

#: Packages whose version changes what is exported or how it was checked.
BUILT_WITH = ("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "transformers", "diffusers", "numpy")
#: Modules of the exporter whose code decides what a stage's files hold.
_STEPS = ("stages", "to_onnx", "graph_files", "validate", "golden")
_KEPT = 2  # entries of one stage: the current one, and the one before for going back
_ABANDONED_S = 24 * 3600.0  # a half-made stage this old belongs to no running build
_ENTRY = "entry.json"


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
    for text in (stage.name, precision, repr(profile), repr(stage.spec), repr(stage.axes), repr(versions())):
        digest.update(text.encode() + b"\0")
    for path in _sources(stage.module):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    _add_weights(digest, stage.module)
    return digest.hexdigest()


def _sources(module: nn.Module) -> list[Path]:
    """Source of the exporter's steps and of the reference's networks in this stage.

    `config.py` is left out: what it says about the stage is in the profile. So are other packages, which have versions.
    """
    names: set[str] = {contract.__name__}
    for part in module.modules():
        names.add(type(part).__module__)
        for value in vars(sys.modules[type(part).__module__]).values():  # what the network's file imports from its kin
            names.add(getattr(value, "__module__", None) or "")
    ours = {n for n in names if n.startswith(("mgcc_ref.", "mgcc_runtime."))} - {"mgcc_ref.config"}
    steps = [Path(__file__).parent / f"{name}.py" for name in _STEPS]
    return steps + sorted(Path(str(sys.modules[name].__file__)) for name in ours)


def _add_weights(digest: Any, module: nn.Module) -> None:
    """Parameters and all buffers, also those that are not saved with the weights."""
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()], key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


class StageCache:
    """A folder of finished stages."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def lock(self, stage: str) -> FileLock:
        """Held while a stage is looked up and made: of two builds, the second waits and finds what the first made."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / f".{stage}.lock")

    def get(self, stage: str, key: str) -> BuiltStage | None:
        """The finished stage of this key, its files' hashes checked; None if there is none, or a damaged one."""
        folder = self._folder(stage, key)
        try:
            entry = read_json(folder / _ENTRY, "entry of a finished stage", Numbers.ANY)
            files = {name: FileEntry(**values) for name, values in entry.pop("files").items()}
            parity = [TensorParity(**values) for values in entry.pop("parity")]
            low = entry.pop("lowered")
            lowered = LowReport.from_json(low) if low else None
            built = BuiltStage(folder=folder, files=files, parity=parity, lowered=lowered, **entry)
            intact = all(sha256_of(folder / name) == file.sha256 for name, file in files.items())
        except (InputError, OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return built if intact else None

    def put(self, stage: str, key: str, make: Callable[[Path], BuiltStage]) -> BuiltStage:
        """Have `make` fill a temporary folder, then give it its name in one step: half a stage is never found."""
        self.root.mkdir(parents=True, exist_ok=True)
        folder = self._folder(stage, key)
        temporary = Path(tempfile.mkdtemp(prefix=f"{stage}.partial-", dir=self.root))
        try:
            built = make(temporary)
            files = {p: file_entry(temporary / p) for p in sorted(_relative_files(temporary))}
            entry = asdict(built) | {"files": {n: asdict(f) for n, f in files.items()}}
            del entry["folder"]
            (temporary / _ENTRY).write_text(json.dumps(entry, indent=1), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one: `get` refused it
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._prune(stage)
        found = self.get(stage, key)
        assert found is not None, f"stage {stage} cannot be read back from {folder}"
        return found

    def discard(self, stage: str) -> None:
        """Drop all entries of a stage."""
        for folder in self.root.glob(f"{stage}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def last_s(self, stage: str, *field: str) -> float:
        """Seconds that a step of this stage took the last time, whatever it was made from; 0 if never.

        `field` is the way to it in the stage's entry, such as "lowered", "engine", "seconds".
        """
        entries = sorted(self.root.glob(f"{stage}-*/{_ENTRY}"), key=lambda p: p.stat().st_mtime)
        try:
            value = read_json(entries[-1], "entry of a finished stage", Numbers.ANY)
            for name in field:
                value = value[name]
            return float(value)
        except (InputError, IndexError, OSError, ValueError, TypeError, KeyError):
            return 0.0

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / f"{stage}-{key[:20]}"

    def _prune(self, stage: str) -> None:
        """Drop all but the newest entries of a stage, and what a killed build left half done."""
        finished = [p for p in self.root.glob(f"{stage}-*") if (p / _ENTRY).is_file()]
        for old in sorted(finished, key=lambda p: p.stat().st_mtime, reverse=True)[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        for partial in self.root.glob("*.partial-*"):
            if time.time() - partial.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(partial, ignore_errors=True)


def file_entry(path: Path) -> FileEntry:
    """Size and hash of a file, as a manifest lists it."""
    return FileEntry(path.stat().st_size, sha256_of(path))


def _relative_files(folder: Path) -> list[str]:
    return [str(p.relative_to(folder).as_posix()) for p in folder.rglob("*") if p.is_file()]
