"""Packages that a test needs and a machine may lack: a skip says what makes the test run."""

from __future__ import annotations

from typing import Any

import pytest

_INSTALL = {
    "openvino": "pip install 'mgcc-edge[openvino]'",
    "polygraphy": "pip install 'mgcc-edge[rtx]'",
    "tensorrt": "pip install 'mgcc-edge[tensorrt]' with NVIDIA's package index, or a Jetson's own",
    "tensorrt_rtx": "pip install 'mgcc-edge[rtx]', on Linux or Windows on x86-64",
}


def needs(module: str) -> Any:
    """The imported module; the test, or the file of tests, skips where it is not installed."""
    return pytest.importorskip(module, reason=f"{module} is not installed; with it this runs: {_INSTALL[module]}")
