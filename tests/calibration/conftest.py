"""A small real bundle, calibration data captured from it, and a convolutional stage of a shape that has every rule."""

from __future__ import annotations

import pytest

from mgcc_calibration.capture import CaptureOptions, capture
from mgcc_calibration.requests import storyworld_requests
from mgcc_runtime.bundle import Bundle
from tests.runtime.golden_data import add_golden
from tests.runtime.tiny_bundle import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """Read only."""
    return Bundle.open(add_golden(make_bundle(tmp_path_factory.mktemp("calibration") / "bundle")))


@pytest.fixture(scope="session")
def source():
    return storyworld_requests(2, seed=3)


@pytest.fixture(scope="session")
def data(bundle, source, tmp_path_factory):
    """Read only: captured from the bundle."""
    return capture(bundle, source, CaptureOptions(seed=3, words=4), tmp_path_factory.mktemp("data") / "captured")
