"""The wheel in the Pythons that devices have: installed where nothing else is, it plays a bundle that was exported."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from .conftest import OWN_PYTHON, ROOT, install, run

PYTHONS = ("3.10", "3.12")  # of JetPack 6 and of JetPack 7
#: Packages that the extras `cpu` and `serve` do not bring.
ELSEWHERE = ("openvino", "tensorrt", "tensorrt_rtx", "cuda", "ray")
MODULES = [
    name
    for name in runpy.run_path(str(ROOT / "tools" / "oldest_python.py"))["device_modules"]()
    if not name.endswith("__main__")
]
#: Every module is imported; one may end at an engine's package that is not there, and says so.
IMPORT_ALL = f"""
import importlib, sys
for name in {MODULES!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] not in {ELSEWHERE!r}:
            raise
print(sys.version_info[:2])
"""


def find_python(version: str) -> Path | None:
    """An interpreter of this version that starts: the one on PATH, or the newest that pyenv has."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = shutil.which(f"python{version}")  # maybe pyenv's shim, which fails where the version is not chosen
    kept = sorted(pyenv.glob(f"{version}.*/bin/python{version}"), key=lambda path: path.parts[-3])
    for candidate in [*([on_path] if on_path else []), *reversed(kept)]:
        asked = [candidate, "-c", "import sys, venv; print(sys.executable, *sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        told = done.stdout.split()
        if done.returncode == 0 and ".".join(told[1:]) == version:
            return Path(told[0])
    return None


@pytest.fixture(scope="module", params=[*PYTHONS, pytest.param(OWN_PYTHON, marks=pytest.mark.slow)])
def programs(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of an environment with `mgcc-edge[cpu,serve]` alone, on each Python that is here."""
    python: str = request.param
    interpreter = Path(sys.executable) if python == OWN_PYTHON else find_python(python)
    if interpreter is None:
        pytest.skip(f"no Python {python} on PATH or in pyenv; `pyenv install {python}` makes this run")
    return install(interpreter, python, wheel, tmp_path_factory.mktemp(f"python{python}"), "cpu,serve")


@pytest.mark.slow
def test_every_module_imports(programs: Path, tmp_path: Path) -> None:
    run(programs / "python", "-c", IMPORT_ALL, cwd=tmp_path)


def test_an_exported_bundle_is_played(programs: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    told = json.loads(run(programs / "mgcc", "info", "--bundle", tiny_bundle, "--json", cwd=tmp_path))
    assert told["profile"] == "tiny"

    verified = json.loads(run(programs / "mgcc", "verify", "--bundle", tiny_bundle, "--json", cwd=tmp_path))
    assert verified["passed"] and len(verified["checks"]) >= 9

    parts = ("--text", "a fox is here", "--image", ROOT / "examples" / "demo" / "friend.png")
    drawn = run(
        programs / "mgcc", "generate", "--bundle", tiny_bundle, *parts, "--out", "next.png", "--json", cwd=tmp_path
    )
    (image,) = json.loads(drawn)["images"]
    with Image.open(tmp_path / "next.png") as picture:
        assert picture.size == (image["width"], image["height"]) == (32, 32)


def test_a_python_that_does_not_start_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyenv's shim is on PATH for each version that it has, and fails for those that are not chosen."""
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    assert shutil.which("python3.99") == str(shim)
    assert find_python("3.99") is None
