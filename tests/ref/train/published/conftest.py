"""Published parts at toy width, and a profile derived from them: what a user of the paper's scale has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgcc_ref.config import Profile, get_profile
from mgcc_ref.train.loop import TrainingPrecision
from mgcc_ref.train.published.parts import Setup, Start, begin
from tests.published import publish_clip, publish_diffusion, publish_opt
from tools import derive_profile


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with llm/, clip/, unet/ and vae/, and profile.json like paper-tiny; gill.json like gill-tiny."""
    folder = tmp_path_factory.mktemp("published")
    model = publish_opt(folder / "llm")
    with torch.no_grad():  # fresh weights hardly heed what is before a word
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.dim() == 2 else 1.0)
    model.save_pretrained(folder / "llm")
    publish_clip(folder / "clip")
    publish_diffusion(folder)
    for like, name in (("paper-tiny", "profile"), ("gill-tiny", "gill")):
        arguments = ["--like", like, "--weights", str(folder), "--name", "mine", "--out", str(folder / f"{name}.json")]
        assert derive_profile.main(arguments) == 0
    return folder


@pytest.fixture(scope="session")
def profile(weights: Path) -> Profile:
    return get_profile(str(weights / "profile.json"))


@pytest.fixture(scope="session")
def setup(weights: Path, profile: Profile) -> Setup:
    return Setup(profile, weights, TrainingPrecision.FP32)


@pytest.fixture(scope="session")
def start(setup: Setup) -> Start:
    """For reading alone."""
    return begin(setup, ("projection", "refiner", "grounder"))
