"""Bundles that tests of the runtime play, as the exporter wrote them; tests that change one take a copy."""

from __future__ import annotations

import shutil

import pytest

from mgcc_runtime import Pipeline
from mgcc_runtime.bundle.folder import read_manifest
from tests.runtime.golden_data import add_golden
from tests.runtime.host_tensorrt import host_gpu_with
from tests.runtime.releases import RELEASES
from tests.runtime.tiny_bundle import make_bundle


@pytest.fixture(scope="session")
def bundle_path(tiny_bundle):
    """Read only."""
    return tiny_bundle


@pytest.fixture(scope="session")
def dimensions(bundle_path):
    """Of `bundle_path`."""
    return read_manifest(bundle_path).dimensions


@pytest.fixture(scope="session")
def made_bundle(tmp_path_factory):
    """Made by hand, with golden data, for what no exporter makes: graphs put in place of others, counted positions."""
    return add_golden(make_bundle(tmp_path_factory.mktemp("bundle") / "made"))


@pytest.fixture
def own_bundle(bundle_path, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(bundle_path, tmp_path / "own")


@pytest.fixture(scope="session")
def pipe(bundle_path):
    with Pipeline.load(bundle_path) as pipeline:
        yield pipeline


@pytest.fixture
def own_paper(paper_tiny_bundle, tmp_path):
    """A copy of a bundle whose golden request has things in its layout."""
    return shutil.copytree(paper_tiny_bundle, tmp_path / "paper")


@pytest.fixture(scope="session")
def paper_pipe(paper_tiny_bundle):
    """It writes text, finds things to place, and takes any label."""
    with Pipeline.load(paper_tiny_bundle) as pipeline:
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
