"""The paper's profile at a size that tests can build, taken block by block and part by part as the real one is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mgcc_ref import config
from mgcc_ref.config import Grounding, Profile, VisualPooling, get_profile

NAME = "paper-tiny"


def paper_tiny(layers: int = 2, source: str = "") -> Profile:
    """OPT of width 128, which 4-bit blocks fit, GLIGEN's gates, a KL autoencoder, phrases instead of labels."""
    tiny = get_profile("tiny")
    return replace(
        tiny,
        name=NAME,
        labels=(),
        llm=replace(
            tiny.llm, family="opt", hidden=128, heads=4, kv_heads=4, intermediate=256, layers=layers,
            feature_layers=(layers,), source=source,
        ),
        unet=replace(tiny.unet, grounding=Grounding.GLIGEN, prediction="epsilon"),
        vae=replace(tiny.vae, kl=True, channels=(32, 32, 32, 32)),
        visual_pooling=VisualPooling.POOLED,
    )  # fmt: skip


def stream(monkeypatch: pytest.MonkeyPatch, profile: Profile) -> Profile:
    """Have the exporter know the profile, and find its language model too large to hold."""
    monkeypatch.setattr(config, "LARGEST_WHOLE_LLM_BYTES", 0)
    monkeypatch.setitem(config._PROFILES, profile.name, profile)
    return profile
