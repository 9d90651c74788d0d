"""A bundle with a few-step student: one branch, its own number of steps, no guidance to choose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mgcc_export.build import build
from mgcc_export.options import BuildOptions
from mgcc_export.targets import Target, choose_recipe
from mgcc_ref.model import load_model
from mgcc_ref.pipeline import ReferencePipeline
from mgcc_ref.precision import Precision
from mgcc_runtime import Pipeline
from mgcc_runtime.cli import main
from mgcc_runtime.contract import stage
from mgcc_runtime.errors import OptionError
from mgcc_runtime.measure.similarity import psnr_db
from tests.tolerances import FP32_IMAGE_PSNR_DB

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fast")
    recipe = choose_recipe(Target.CPU, Precision.FP32)
    build(BuildOptions("tiny-fast", recipe, folder / "bundle", folder / "cache"), lambda *_: None)
    return folder / "bundle"


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Iterator[Pipeline]:
    with Pipeline.load(bundle, threads=1) as loaded:
        yield loaded


def test_same_as_the_reference(pipeline: Pipeline) -> None:
    reference = ReferencePipeline(load_model("tiny-fast"))
    found, expected = pipeline.generate(["A cat."], seed=3), reference.generate(["A cat."], seed=3)
    assert psnr_db(np.asarray(found.image), np.asarray(expected.image)) >= FP32_IMAGE_PSNR_DB


def test_the_unet_takes_no_guidance(pipeline: Pipeline) -> None:
    dimensions = pipeline.bundle.manifest.dimensions
    assert dimensions.distilled
    assert "guidance" not in [t.name for t in stage(dimensions, "unet").inputs]


def test_guidance_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(OptionError, match=r"guidance is 3.0, but this bundle's UNet has it in its weights"):
        pipeline.generate(["A cat."], guidance=3.0)
    with pytest.raises(ValueError, match="leave it out"):
        ReferencePipeline(load_model("tiny-fast")).generate(["A cat."], guidance=3.0)


def test_another_number_of_steps_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(OptionError, match=r"steps is 20, expected 4 and no other; the bundle's default is 4"):
        pipeline.generate(["A cat."], steps=20)


def test_the_bundle_says_what_it_holds(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--bundle", str(bundle)]) == 0
    assert "4 steps by a distilled UNet, guidance in its weights" in capsys.readouterr().out
    assert main(["verify", "--bundle", str(bundle)]) == 0
