"""The distribution, built and installed as a device would get it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEELHOUSES = Path(sys.prefix) / "wheelhouse"  # tools/fetch_wheelhouses.py fills it, a folder for each Python
OWN_PYTHON = ".".join(map(str, sys.version_info[:2]))


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Output of a command; what it said goes into the failure if it failed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=cwd, env=clean, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution's wheel, built offline from the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, ROOT)
    (found,) = folder.glob("*.whl")
    return found


def wheelhouse(python: str) -> Path:
    """The folder of the wheels that `mgcc-edge[cpu,serve]` needs on a Python, and of pip."""
    folder = WHEELHOUSES / python
    if not folder.is_dir():
        pytest.fail(f"{folder} is missing; `make setup` fetches the wheels that this test installs")
    return folder


def install(interpreter: Path, python: str, wheel: Path, folder: Path, extras: str = "cpu") -> Path:
    """Folder of the programs of an environment with nothing but these extras, installed offline, without pip."""
    run(interpreter, "-m", "venv", "--without-pip", folder)
    wheels = wheelhouse(python)
    pip = next(wheels.glob("pip-*.whl")) / "pip"
    # --no-compile: of the packages that are installed, sympy's thousand modules among them, few are ever imported
    options = ("--quiet", "--no-index", "--no-compile", "--find-links", wheels)
    run(folder / "bin" / "python", pip, "install", *options, f"mgcc-edge[{extras}] @ {wheel.as_uri()}")
    return folder / "bin"


@pytest.fixture(scope="session")
def device(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of such an environment on the Python that runs the tests."""
    return install(Path(sys.executable), OWN_PYTHON, wheel, tmp_path_factory.mktemp("device"))
