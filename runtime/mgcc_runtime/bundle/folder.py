"""The bundle: a folder with everything a device needs, described by its own manifest.

`Bundle.open` checks schema, paths, sizes and hashes before any file is opened for use. Nothing is ever unpickled.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.bundle.manifest import (
    SCHEMA,
    FileEntry,
    GraphEntry,
    LayoutRules,
    Manifest,
    RequestTolerance,
    StageEntry,
    Tokens,
    Tolerance,
    Vision,
)
from mgcc_runtime.contract import StageSpec, TensorSpec, stages
from mgcc_runtime.errors import BundleError, ContractError, InputError
from mgcc_runtime.machine import installed_version
from mgcc_runtime.names import (
    EDITABLE_FILES,
    LABELS,
    LAYOUT_EXAMPLES,
    LAYOUT_MASKS,
    MANIFEST,
    REQUIRED_FILES,
    RUNTIME,
)
from mgcc_runtime.reading import map_npy, read_json
from mgcc_runtime.version import VERSION

__all__ = [
    "SCHEMA", "Bundle", "Check", "FileEntry", "GraphEntry", "LayoutRules", "Manifest", "RequestTolerance",
    "StageEntry", "Tokens", "Tolerance", "Vision", "check_files", "labels_json", "read_manifest", "sha256_of",
    "write_manifest",
]  # fmt: skip

_LABELS = "labels"  # the one field of the label list's file
#: Of the manifest: what changes no picture.
_OF_THE_BUILD = frozenset(
    {
        "built_with",
        "built_at",
        "requires",
        "memory_estimate_bytes",
        "measured_on",
        "tolerances",
        "request_tolerance",
        "preview",
    }
)
REBUILD = "rebuild it with `python export/build_engines.py`"


class Check(enum.Enum):
    """How much of a bundle is checked when it is opened."""

    HASHES = "hashes"  # paths, sizes and SHA-256 of every file
    SIZES = "sizes"  # paths and sizes only: for a bundle that this device has already verified


@dataclass(frozen=True)
class Bundle:
    """A checked bundle folder."""

    root: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, check: Check = Check.HASHES) -> Bundle:
        """Check the folder at `path` and read its manifest; BundleError or ContractError if it cannot be used."""
        root = Path(path)
        manifest = read_manifest(root)
        bundle = cls(root, manifest)
        _check_requirements(bundle)
        _check_contract(bundle)
        for message in check_files(bundle, check):
            raise BundleError(message)
        return bundle

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what it draws with: the manifest, which has a hash of each file, without where it was made.

        An edited file counts as it is now.
        """
        told = {name: value for name, value in self.manifest.to_json().items() if name not in _OF_THE_BUILD}
        for name in EDITABLE_FILES & told["files"].keys():
            told["files"][name] = sha256_of(self.root / name)
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def file(self, name: str) -> Path:
        """Path of a listed file; BundleError if the manifest does not list it."""
        if name not in self.manifest.files:
            raise BundleError(f"bundle {self.root} lists no {name} in its manifest; {REBUILD}")
        return self.root / name

    def has(self, name: str) -> bool:
        return name in self.manifest.files

    def array(self, name: str, shape: tuple[int | None, ...]) -> NDArray[np.float32]:
        """A memory-mapped float32 .npy file of this shape (None: any length)."""
        try:
            return map_npy(self.file(name), "array", shape)
        except InputError as error:
            raise BundleError(f"bundle {self.root} is damaged: {error}, or {REBUILD}") from None

    def labels(self) -> tuple[str, ...]:
        """The label list, empty for an open vocabulary."""
        if not self.has(LABELS):
            return ()
        values = read_json(self.file(LABELS), "label list")
        if not isinstance(values, dict) or not isinstance(values.get(_LABELS), list):
            raise BundleError(f'{self.root / LABELS} is not {{"{_LABELS}": [...]}}; {REBUILD}')
        return tuple(str(label) for label in values[_LABELS])


def labels_json(labels: Sequence[str]) -> dict[str, Any]:
    """The label list's file, as `Bundle.labels` reads it."""
    return {_LABELS: list(labels)}


def read_manifest(root: Path) -> Manifest:
    """The manifest of the folder `root`, its schema checked but none of the other files."""
    if not os.path.isdir(root):  # noqa: PTH112 (Path's own raises for a name that is too long)
        raise BundleError(
            f"bundle {root} is not a folder; give the folder that `python export/build_engines.py --out {root}` makes"
        )
    path = root / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{root} is not a bundle, it has no {MANIFEST}; "
            f"build one with `python export/build_engines.py --out {root}`"
        )
    try:
        values = read_json(path, "manifest")
    except InputError as error:
        raise BundleError(f"bundle {root} is damaged: {error}") from None
    schema = values.get("schema") if isinstance(values, dict) else None
    if not isinstance(schema, int) or schema < 1:
        raise BundleError(f"manifest {path} has schema {schema!r}, expected {SCHEMA}; {REBUILD}")
    if schema != SCHEMA:
        way_out = "upgrade mgcc-edge" if schema > SCHEMA else REBUILD
        raise BundleError(f"bundle {root} has schema {schema}, this runtime ({VERSION}) reads {SCHEMA}; {way_out}")
    try:
        return Manifest.from_json(values)
    except KeyError as error:
        raise BundleError(f"manifest {path} has no field {error}; {REBUILD}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"manifest {path} has a field of a wrong form ({error}); {REBUILD}") from None


def check_files(bundle: Bundle, check: Check) -> list[str]:
    """One sentence for each listed file that is outside the folder, missing, truncated or altered."""
    found = [message for name in bundle.manifest.files if (message := _path_fault(bundle.root, name))]
    listed = {*bundle.manifest.files}
    needed = REQUIRED_FILES | {name for entry in bundle.manifest.stages.values() for name in entry.files}
    if bundle.manifest.in_context is not None:
        needed |= {LAYOUT_EXAMPLES, LAYOUT_MASKS}
    found += [f"bundle {bundle.root} lists no {name} in its manifest; {REBUILD}" for name in sorted(needed - listed)]
    if found:
        return found
    # hashlib releases the interpreter lock, so two threads hash about twice as fast
    with ThreadPoolExecutor(max_workers=2) as pool:
        faults = pool.map(
            lambda item: _file_fault(bundle.root / item[0], item[1], None if item[0] in EDITABLE_FILES else check),
            bundle.manifest.files.items(),
        )
        return [fault for fault in faults if fault]


def _path_fault(root: Path, name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or re.match(r"^[A-Za-z]:", name):
        return f"bundle {root} lists the path {name!r}, expected a path inside the folder; do not use this bundle"
    if not (root / name).resolve().is_relative_to(root.resolve()):
        return f"{root / name} is a link out of the bundle, expected a file inside it; copy the file in"
    return ""


def _file_fault(path: Path, entry: FileEntry, check: Check | None) -> str:
    """`check` is None for a file that may be edited: whoever reads it checks what it says."""
    if not path.is_file():
        return f"{path} is missing, the manifest lists it with {entry.bytes} bytes; copy the bundle again or {REBUILD}"
    if check is None:
        return ""
    size = path.stat().st_size
    if size != entry.bytes:
        kind = "truncated" if size < entry.bytes else "altered"
        return f"{path} is {kind}: {size} bytes, expected {entry.bytes}; copy the bundle again or {REBUILD}"
    if check is Check.HASHES and (digest := sha256_of(path)) != entry.sha256:
        return (
            f"{path} is altered: SHA-256 {digest[:12]}..., expected {entry.sha256[:12]}...; "
            f"copy the bundle again or {REBUILD}"
        )
    return ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as lower-case hex, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    block = bytearray(2**20)
    view = memoryview(block)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(view[:count])
    return digest.hexdigest()


def _check_requirements(bundle: Bundle) -> None:
    """Least versions of the runtime and of packages; a package that is absent is the engine's own error later."""
    for name, wanted in bundle.manifest.requires.items():
        ours = VERSION if name == RUNTIME else installed_version(name)
        match = re.fullmatch(r">=\s*(\d+(?:\.\d+)*)", wanted.strip())
        if match and ours and _numbers(ours) < _numbers(match[1]):
            upgrade = "mgcc-edge" if name == RUNTIME else name
            raise BundleError(
                f"bundle {bundle.root} needs {name} {wanted}, this is {ours}; `pip install --upgrade {upgrade}`"
            )


def _numbers(version: str) -> tuple[int, ...]:
    """1.20.1 -> (1, 20, 1); what follows the numbers of a release is left out."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _check_contract(bundle: Bundle) -> None:
    """The manifest's tensors must be the contract's, name for name; more or fewer stages are refused too."""
    expected = {s.name: s for s in stages(bundle.manifest.dimensions)}
    found = bundle.manifest.stages
    if missing := sorted(set(expected) - set(found)):
        raise BundleError(f"bundle {bundle.root} has no stage {', '.join(missing)}; {REBUILD} and without --stages")
    if extra := sorted(set(found) - set(expected)):
        raise BundleError(f"bundle {bundle.root} has an unknown stage {', '.join(extra)}; upgrade mgcc-edge")
    if strange := [name for name, entry in found.items() if entry.decode and name != "llm"]:
        raise BundleError(
            f"bundle {bundle.root} has a graph for decoding in the stage {', '.join(strange)}, expected one in llm "
            f"alone; {REBUILD}"
        )
    for name, spec in expected.items():
        _check_tensors(bundle.root, spec, "input", spec.inputs, found[name].inputs)
        _check_tensors(bundle.root, spec, "output", spec.outputs, found[name].outputs)


def _check_tensors(
    root: Path, spec: StageSpec, kind: str, expected: tuple[TensorSpec, ...], found: tuple[TensorSpec, ...]
) -> None:
    names = [t.name for t in found]
    if names != [t.name for t in expected]:
        raise ContractError(
            f"stage {spec.name} of bundle {root} has the {kind}s {', '.join(names) or 'none'}, "
            f"expected {', '.join(t.name for t in expected)}; {REBUILD}"
        )
    for ours, theirs in zip(expected, found, strict=True):
        if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
            raise ContractError(
                f"{kind} {ours.name} of stage {spec.name} in bundle {root} is {theirs.dtype.value} {theirs.shape}, "
                f"expected {ours.dtype.value} {ours.shape}; {REBUILD}"
            )


def write_manifest(root: Path, manifest: Manifest) -> Path:
    """Write manifest.json; the last file of a bundle to be written, since it makes the folder one."""
    path = root / MANIFEST
    path.write_text(json.dumps(manifest.to_json(), indent=2) + "\n", encoding="utf-8")
    return path
