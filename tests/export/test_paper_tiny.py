"""The paper's parts at toy width for every target and precision, by the command line; verified where they play."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgcc_export.cli import main
from mgcc_export.targets import ASKED, Target
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.measure.verify import verify
from tests.exported import shared_folder

pytestmark = pytest.mark.slow

ROWS = [(target, precision) for target in Target for precision in ASKED]


@pytest.mark.parametrize(("target", "precision"), ROWS)
def test_row(
    target: Target, precision: Precision, paper_tiny_bundle: Path, tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    cache = shared_folder(tmp_path_factory) / "export-cache"  # which has the fp32 stages
    out, report = tmp_path / "bundle", tmp_path / "report.json"
    options = ["--profile", "paper-tiny", "--target", target, "--precision", precision, "--weights", "random"]
    assert main([*options, "--out", str(out), "--cache", str(cache), "--report", str(report)]) == 0
    manifest = Bundle.open(out).manifest
    assert (manifest.profile, manifest.target, manifest.weights) == ("paper-tiny", target, "random")
    assert {"unet_plain", "phrase_encoder"} <= {*manifest.stages}
    assert json.loads(report.read_text())
    if target is Target.RTX:
        return  # engines, which only a GPU plays
    failed = {finding.name: finding.detail for finding in verify(out) if not finding.passed}
    if target is Target.ORT_GPU:  # its values are right, on what it is not for
        assert "ran on the CPU alone" in failed.pop("device")
    assert failed == {}
