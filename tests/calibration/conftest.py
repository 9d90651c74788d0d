"""A small real bundle, calibration data captured from it, and a convolutional stage of a shape that has every rule."""

from __future__ import annotations

import pytest

from mgcc_calibration.data.capture import CaptureOptions, capture
from mgcc_calibration.data.requests import storyworld_requests
from mgcc_runtime.bundle.folder import Bundle
from tests.runtime.golden_data import add_golden
from tests.runtime.tiny_bundle import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """Read only; made by hand for its size alone: lowering `tiny` itself in all these tests takes 4 CPU minutes more.

    What the exporter wrote is captured in test_exported.py, and lowered whole in tests/export/test_cpu_build.py.
    """
    return Bundle.open(add_golden(make_bundle(tmp_path_factory.mktemp("calibration") / "bundle")))


@pytest.fixture(scope="session")
def source():
    return storyworld_requests(2, seed=3)


@pytest.fixture(scope="session")
def data(bundle, source, tmp_path_factory):
    """Read only: captured from the bundle."""
    return capture(bundle, source, CaptureOptions(seed=3, words=4), tmp_path_factory.mktemp("data") / "captured")
