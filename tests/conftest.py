"""What all tests share: the markers, and one thread a process (two OpenMP pools on two cores spin for each other)."""

from __future__ import annotations

import os
import shutil

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # set-up fetched everything; a test that needs a hub is wrong


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU; skips, visibly, where there is none")
    config.addinivalue_line("markers", "slow: takes more than about ten seconds; runs by default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("nvidia-smi"):
        return
    absent = pytest.mark.skip(reason="no NVIDIA GPU on this machine")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(absent)
