"""What the wheel holds, and that it works where nothing else is installed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from .conftest import ROOT, run
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
    packaged = {name for name in names if name.startswith("mgcc_runtime/")}
    assert packaged == {
        str(path.relative_to(ROOT / "runtime"))
        for path in (ROOT / "runtime" / "mgcc_runtime").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_installed_runtime_has_no_heavy_package_and_is_small(device: Path):
    installed = {row["name"].lower() for row in json.loads(run(device / "pip", "list", "--format", "json"))}
    assert {"mgcc-edge", "onnxruntime", "numpy", "pillow", "tokenizers"} <= installed
    assert not installed & {"torch", "transformers", "diffusers", "onnx", "onnxscript", "scipy"}
    site = next((device.parent / "lib").glob("python3*/site-packages"))
    base = ("pip", "setuptools", "pkg_resources", "_distutils_hack")  # venv's own
    size = sum(
        path.stat().st_size
        for path in site.rglob("*")
        if path.is_file() and not path.relative_to(site).parts[0].startswith(base)
    )
    assert size <= MAX_INSTALL_BYTES, f"{size / 1e6:.0f} MB"


@pytest.mark.slow
def test_installed_command_plays_a_bundle(device: Path, tiny_bundle: Path, tmp_path: Path):
    told = json.loads(run(device / "mgcc", "info", "--bundle", tiny_bundle, "--json", cwd=tmp_path))
    assert told["profile"] == "tiny"
    generate = (
        "generate",
        "--bundle",
        tiny_bundle,
        "--text",
        "a fox is here",
        "--image",
        ROOT / "examples/demo/friend.png",
    )
    out = run(device / "mgcc", *generate, "--out", tmp_path / "next.png", "--json", cwd=tmp_path)
    (drawn,) = json.loads(out)["images"]
    with Image.open(tmp_path / "next.png") as image:
        assert image.size == (drawn["width"], drawn["height"]) == (32, 32)
