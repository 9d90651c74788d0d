"""A kit for aarch64 does there what its README says, by its own commands."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from .conftest import TABLE, Device, commands_of, emulated

pytestmark = [pytest.mark.arm64, pytest.mark.xdist_group("story")]


def test_its_readme_s_commands_install_verify_and_draw(device: Device, record_property) -> None:
    check, _, _, verify, draw = commands_of(device.kit)
    assert check.startswith("sha256sum ")  # tests/packaging has it run; the two after it made this environment
    assert "9 passed, 0 failed" in emulated(device.emulator, verify, device.kit)
    emulated(device.emulator, draw, device.kit)
    with Image.open(device.kit / "first.png") as picture:
        assert picture.size == (32, 32)
    record_property(TABLE, json.dumps(["kit (tiny, fp32)", "README", "its commands installed, verified and drew"]))


def test_it_is_aarch64(device: Device) -> None:
    told = device.emulator.run(
        device.kit / "venv" / "bin" / "python",
        "-c",
        "import platform, onnxruntime; print(platform.machine(), onnxruntime.__version__)",
        cwd=device.kit,
    )
    assert told.split() == ["aarch64", "1.23.2"]
