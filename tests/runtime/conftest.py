"""A small real bundle, made once a process; tests that change one take a copy."""

from __future__ import annotations

import shutil

import pytest

from mgcc_runtime import Pipeline
from tests.runtime.golden_data import add_golden
from tests.runtime.host_tensorrt import host_gpu_with
from tests.runtime.releases import RELEASES
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


@pytest.fixture(params=RELEASES, ids=str)
def release(request):
    """Each release of TensorRT and TensorRT-RTX that the project knows; a test may name fewer of them."""
    return request.param


@pytest.fixture
def host(release, monkeypatch, tmp_path):
    """A GPU on the host's memory, with this release's library and no other."""
    with host_gpu_with(release, monkeypatch, tmp_path) as driver:
        yield driver
