"""A small real bundle, made once a process; tests that change one take a copy."""

from __future__ import annotations

import shutil
import sys

import pytest

from mgcc_runtime import Pipeline
from tests.runtime.golden_data import add_golden
from tests.runtime.tiny_bundle import make_bundle


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory):
    """Read only: with golden data."""
    return add_golden(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture
def own_bundle(bundle_path, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(bundle_path, tmp_path / "own")


@pytest.fixture(scope="session")
def pipe(bundle_path):
    with Pipeline.load(bundle_path) as pipeline:
        yield pipeline


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A GPU on the host's memory, with both libraries."""
    from mgcc_runtime.engines import cuda, tensorrt
    from tests.runtime.engine_makers import VERSION
    from tests.runtime.host_gpu import HostDriver, host_tensorrt

    driver = HostDriver()
    api = driver.driver()
    monkeypatch.setattr(cuda, "driver", lambda: api)
    monkeypatch.setenv("MGCC_CACHE", str(tmp_path / "cache"))
    tensorrt.gpu_memory.cache_clear()
    tensorrt._logger.cache_clear()
    for library in ("tensorrt", "tensorrt_rtx"):
        rtx = library == "tensorrt_rtx"
        monkeypatch.setitem(sys.modules, library, host_tensorrt(driver, rtx=rtx, version=VERSION))
    yield driver
    tensorrt.gpu_memory.cache_clear()
