"""What the wheel holds, and that it works where nothing else is installed."""

from __future__ import annotations

import zipfile
from importlib.metadata import distributions
from pathlib import Path

from .conftest import ROOT
from .test_imports import FOLDERS

MAX_INSTALL_BYTES = 250e6  # design: the runtime's whole install, without a model


def test_wheel_contents(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        name for name, folder in FOLDERS.items() if any(folder.glob("*.py"))
    }
    assert not [name for name in names if "weights/" in name or "__pycache__" in name or name.endswith(".safetensors")]
    assert {Path(name).name for name in names} >= {"LICENSE", "NOTICE", "METADATA", "contract.py"}
    assert "mgcc = mgcc_runtime.cli:main" in entry_points
    typed = {name.split("/")[0] for name in names if name.endswith("/py.typed")}
    assert typed == {name for name in FOLDERS if name != "mgcc_benchmarks"}, "what users import has types for them"
    packaged = {name for name in names if name.startswith("mgcc_runtime/")}
    assert packaged == {
        str(path.relative_to(ROOT / "runtime"))
        for path in (ROOT / "runtime" / "mgcc_runtime").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_installed_runtime_has_no_heavy_package_and_is_small(device: Path):
    site = next((device.parent / "lib").glob("python3*/site-packages"))
    installed = {found.metadata["Name"].lower() for found in distributions(path=[str(site)])}
    assert {"mgcc-edge", "onnxruntime", "numpy", "pillow", "tokenizers"} <= installed
    assert not installed & {"torch", "transformers", "diffusers", "onnx", "onnxscript", "scipy"}
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    assert size <= MAX_INSTALL_BYTES, f"{size / 1e6:.0f} MB"
