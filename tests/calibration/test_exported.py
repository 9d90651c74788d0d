"""Calibration data of bundles that the exporter wrote: every stage that can be lowered has samples to lower it from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mgcc_calibration.data.capture import CaptureOptions, capture
from mgcc_calibration.data.requests import storyworld_requests
from mgcc_calibration.data.reuse import _usable
from mgcc_calibration.data.samples import MANIFEST
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import WITHOUT_WEIGHTS, stages
from tests.exported import PROFILES, exported_bundle


@pytest.mark.parametrize("profile", PROFILES)
def test_every_stage_is_captured(profile: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle = Bundle.open(exported_bundle(profile, tmp_path_factory))
    steps = None if bundle.manifest.dimensions.distilled else 6
    data = capture(bundle, storyworld_requests(2, seed=3), CaptureOptions(3, steps, words=4), tmp_path / "data")
    for spec in stages(bundle.manifest.dimensions):
        if spec.name not in WITHOUT_WEIGHTS:
            assert data.check(spec) >= 1, spec.name  # of two requests one alone may have pictures


def test_phrases_are_those_that_a_request_names(paper_tiny_bundle: Path, tmp_path: Path) -> None:
    """Two requests of several words each: no phrase is read twice in one."""
    bundle = Bundle.open(paper_tiny_bundle)
    data = capture(bundle, storyworld_requests(2, seed=3), CaptureOptions(3, 6, words=0), tmp_path / "data")
    phrases = [feeds["input_ids"] for feeds in data.samples("phrase_encoder")]
    assert len(phrases) == 8
    for ours in (phrases[:4], phrases[4:]):
        assert len({ids.tobytes() for ids in ours}) == len(ours)
    assert all(np.unique(ids).size > 2 for ids in phrases)  # more than start and end


def test_data_without_samples_of_a_stage_are_captured_anew(paper_tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, asked = Bundle.open(paper_tiny_bundle), CaptureOptions(0, 6, words=0)
    data = capture(bundle, storyworld_requests(2, seed=0), asked, tmp_path / "data")
    assert _usable(bundle, data.root, asked, 2)
    path = data.root / MANIFEST
    values = json.loads(path.read_text())
    del values["stages"]["phrase_encoder"]
    path.write_text(json.dumps(values))
    assert _usable(bundle, data.root, asked, 2) is None
