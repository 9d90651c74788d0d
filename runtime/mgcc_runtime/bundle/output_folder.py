"""What of an output folder a bundle may replace."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mgcc_runtime.bundle.folder import read_manifest
from mgcc_runtime.errors import BundleError, InputError, MgccError
from mgcc_runtime.names import MANIFEST

_LEFT_OUT = "which --stages leaves out; give another folder with --out, or build all stages"


class OutputFolderError(InputError):
    """The output folder holds something that must not be replaced."""


class BusyError(MgccError):
    """Somebody else writes into the same folder."""


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
