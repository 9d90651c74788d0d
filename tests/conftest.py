"""What all tests share: the markers, and one thread a process (two OpenMP pools on two cores spin for each other)."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.cpu_time import CpuTimes
from tests.deadline import Deadline
from tests.exported import exported_bundle

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # set-up fetched everything; a test that needs a hub is wrong


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu-times", metavar="FILE", help="write the CPU seconds of each test, the dearest first")
    parser.addoption("--cpu-budget-min", metavar="N", type=float, help="the most CPU minutes of tests without `slow`")
    parser.addoption("--slow-until-min", metavar="N", type=float, help="minutes after which no slow test begins")


def pytest_configure(config: pytest.Config) -> None:
    _heed_signals()
    config.pluginmanager.register(CpuTimes(config), "cpu-times")
    config.pluginmanager.register(Deadline(config), "deadline")
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU; skips, visibly, where there is none")
    config.addinivalue_line("markers", "slow: takes long and breaks seldom: in `make test-all` alone")


def _heed_signals() -> None:
    """As in a shell's foreground: in its background, or under nohup, this process and its children would ignore SIGINT
    or SIGHUP, and tests of what a signal does would wait for ever.
    """
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
            signal.signal(getattr(signal, name), handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("nvidia-smi"):
        return
    absent = pytest.mark.skip(reason="no NVIDIA GPU here (no nvidia-smi on PATH); on a machine that has one it runs")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(absent)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile `tiny`, read only: see `exported_bundle`."""
    return exported_bundle("tiny", tmp_path_factory)


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile `tiny` for the target jetson, read only: fp16 graphs and the plan that engines are built by."""
    return exported_bundle("tiny", tmp_path_factory, "jetson", "fp16")


@pytest.fixture(scope="session")
def tiny_fast_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile `tiny-fast`, read only: a few-step student."""
    return exported_bundle("tiny-fast", tmp_path_factory)


@pytest.fixture(scope="session")
def paper_tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile `paper-tiny`, read only: OPT, GLIGEN's gates, a phrase encoder, no label list."""
    return exported_bundle("paper-tiny", tmp_path_factory)
