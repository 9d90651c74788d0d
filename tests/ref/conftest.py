"""Small models for the reference's tests, all of them seeded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mgcc_ref.config import Grounding, Profile, SamplerConfig, VaeConfig, get_profile
from mgcc_ref.model import MgccModel, load_model


@pytest.fixture(scope="session")
def tiny() -> MgccModel:
    return load_model("tiny")


@pytest.fixture(scope="session")
def gated_profile() -> Profile:
    """The tiny profile, the paper's way: one patch convolution, GLIGEN gates, KL autoencoder, PLMS, 30 boxes."""
    base = get_profile("tiny")
    return replace(
        base,
        name="tiny-gated",
        clip=replace(base.clip, stem_channels=()),
        unet=replace(base.unet, grounding=Grounding.GLIGEN, prediction="epsilon", latent_channels=4),
        vae=VaeConfig((32, 32, 32, 32), kl=True, scaling_factor=0.18215),
        sampler=SamplerConfig("PNDMScheduler", "scaled_linear", 0.00085, 0.012, 5, 7.5),
        max_objects=30,
    )


@pytest.fixture(scope="session")
def gated(gated_profile: Profile) -> MgccModel:
    return load_model(gated_profile)
