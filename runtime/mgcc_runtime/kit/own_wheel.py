"""The wheel of this project: built where it runs from a checkout, given by hand where it runs from an installation."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import mgcc_runtime
from mgcc_runtime.errors import InputError, KitError
from mgcc_runtime.kit.wheels import run_pip
from mgcc_runtime.version import VERSION

_NAME = re.compile(r"mgcc_edge-([^-]+)-py3-none-any\.whl")
_BUILDER = "hatchling"


def own_wheel(given: Path | None, folder: Path) -> Path:
    """A wheel of this version in `folder`; InputError if `given` is none, KitError if there is nothing to build from.

    An installation is not packed again: which of its files are as they came nobody can tell.
    """
    if given is not None:
        return Path(shutil.copy2(_checked(given), folder))
    root = checkout()
    if root is None:
        raise KitError(
            f"mgcc-edge runs from an installation ({Path(mgcc_runtime.__file__).parent}), expected a checkout of its "
            "sources to build a wheel from; give --wheel FILE.whl, which `make wheel` writes in a checkout"
        )
    options = ["--no-deps", "--wheel-dir", str(folder)]
    if importlib.util.find_spec(_BUILDER) is not None:  # then no network is needed for it
        options += ["--no-build-isolation", "--no-index"]
    run_pip(["wheel", *options, str(root)], f"the wheel of {root} cannot be built")
    return next(folder.glob("mgcc_edge-*.whl"))


def checkout() -> Path | None:
    """The folder of the sources that this runs from; None in an installation."""
    root = Path(mgcc_runtime.__file__).resolve().parents[2]
    project = root / "pyproject.toml"
    return root if project.is_file() and b'name = "mgcc-edge"' in project.read_bytes() else None


def _checked(given: Path) -> Path:
    match = _NAME.fullmatch(given.name)
    if match is None or not given.is_file():
        raise InputError(
            f"--wheel {given} is no wheel of mgcc-edge; give the file that `make wheel` writes in a checkout"
        )
    if match[1] != VERSION:
        raise InputError(
            f"--wheel {given} is of mgcc-edge {match[1]}, this is {VERSION}, which checked the bundle; "
            "make the wheel and the kit with the same version"
        )
    return given
