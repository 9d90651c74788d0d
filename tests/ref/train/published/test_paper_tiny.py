"""`paper-tiny` by the commands of full size: folders as they are downloaded, training, a model that draws."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgcc_ref.model import load_model
from mgcc_ref.pipeline import ReferencePipeline
from mgcc_ref.train.__main__ import main
from tools import publish_tiny


def test_the_training_of_paper_tiny_differs_in_its_folder_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish_tiny.main(["--out", str(tmp_path), "--count", "8"]) == 0
    weights = tmp_path / "weights"
    for step in ("align", "grounder"):
        arguments = ["--profile", "paper-tiny", "--weights", str(weights), "--run", str(tmp_path / step)]
        data = ["--data", f"coco={tmp_path / 'coco'}", "--steps", "2", "--batch-size", "4", "--precision", "fp32"]
        assert main([*arguments, "--step", step, *data]) == 0, capsys.readouterr().err
    model = load_model("paper-tiny", weights)
    result = ReferencePipeline(model).generate(["a fox"], steps=2)
    assert result.image.size == (64, 64)


def test_a_folder_of_another_size_is_refused_by_its_name(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not passed over in silence, though the profile names no source."""
    (tmp_path / "coco").mkdir()
    publish_tiny.publish_pictures(2, tmp_path / "coco")
    arguments = ["--profile", "paper-tiny", "--weights", str(weights), "--run", str(tmp_path / "run")]
    assert main([*arguments, "--step", "align", "--data", f"coco={tmp_path / 'coco'}", "--batch-size", "2"]) == 2
    assert "too small for the profile: vocabulary 280 where the profile has 512" in capsys.readouterr().err
