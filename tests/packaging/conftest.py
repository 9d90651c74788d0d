"""The distribution, built and installed as a device would get it."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEELHOUSE = Path(sys.prefix) / "wheelhouse"


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


@pytest.fixture(scope="session")
def device(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of an environment with nothing but `mgcc-edge[cpu]`, installed offline."""
    if not WHEELHOUSE.is_dir():
        pytest.fail(f"{WHEELHOUSE} is missing; `make setup` fetches the wheels that this test installs")
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder, with_pip=True, symlinks=True)
    install = ("-m", "pip", "install", "--quiet", "--no-index", "--find-links", WHEELHOUSE)
    run(folder / "bin" / "python", *install, f"mgcc-edge[cpu] @ {wheel.as_uri()}")
    return folder / "bin"
