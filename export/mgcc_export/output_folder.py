"""An output folder that is replaced as a whole: what may be replaced, and the two renames. Needs no other package."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from mgcc_export.errors import OutputFolderError
from mgcc_runtime.bundle import MANIFEST, read_manifest
from mgcc_runtime.errors import BundleError

_LEFT_OUT = "which --stages leaves out; give another folder with --out, or build all stages"


def check_replaceable(out: Path, stage_names: Iterable[str], left_out: str = _LEFT_OUT) -> None:
    """OutputFolderError if `out` holds files that are no bundle, or a bundle with stages this build has not.

    `left_out` is the end of the sentence about these.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        raise OutputFolderError(
            f"{out} exists and is no bundle (it has no {MANIFEST}), so it is not replaced; "
            "give an empty or new folder with --out"
        )
    try:
        lost = sorted(set(read_manifest(out).stages) - set(stage_names))
    except BundleError:
        return  # damaged or of another schema: a new one is what it needs
    if lost:
        raise OutputFolderError(f"{out} holds a bundle with the stages {', '.join(lost)}, {left_out}")


def old_of(out: Path) -> Path:
    """Where the folder that stood in the place of `out` is while it is replaced."""
    return out.parent / f".{out.name}.old"


def recover(out: Path) -> None:
    """Bring back what a killed build had moved away; between the two renames of `replace_folder` `out` is absent."""
    old = old_of(out)
    if old.exists() and not out.exists():
        old.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def replace_folder(finished: Path, out: Path) -> None:
    """Put a finished folder in the place of `out`."""
    if out.exists():
        out.rename(old_of(out))
    finished.rename(out)
    shutil.rmtree(old_of(out), ignore_errors=True)
