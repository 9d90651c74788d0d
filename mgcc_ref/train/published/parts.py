"""The model at the start of training around published weights: frozen parts filled and placed, trained ones fresh."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor

from mgcc_ref.config import Profile
from mgcc_ref.llm_layers import StreamedLm
from mgcc_ref.model import MgccModel, local_sources
from mgcc_ref.parts import open_parts
from mgcc_ref.train.loop import TrainingPrecision
from mgcc_ref.train.published.frozen import FrozenLm, Placement, choose_placement, llm_bytes

ALIGNED = ("projection", "refiner")  # what step `align` trains, beside the [IMG] tokens


@dataclass(frozen=True)
class Start:
    """The model and device at the start of a run."""

    model: MgccModel
    llm: FrozenLm
    device: torch.device


@dataclass(frozen=True)
class Setup:
    """A run's setup: the profile with its sources, the weights folder, number format and placement."""

    profile: Profile
    weights: Path
    precision: TrainingPrecision
    placement: Placement | None = None  # None: the fastest with room
    seed: int = 0

    @property
    def local(self) -> Setup:
        """The setup with those parts from the weights folder that it holds."""
        return replace(self, profile=local_sources(self.profile, self.weights))


def begin(setup: Setup, parts: Collection[str]) -> Start:
    """Published weights from `weights`/llm and /clip, or the profile's sources; seeded noise for a profile without.

    `parts` are in memory. WeightsError names what is missing or differs from the profile.
    """
    setup = setup.local
    device = PartialState().device
    parted = open_parts(setup.profile, setup.weights, random=not setup.profile.llm.source, seed=setup.seed)
    parted.start(("clip", *parts))
    model = parted.model
    assert isinstance(model.llm, StreamedLm)
    placement = setup.placement or choose_placement(llm_bytes(setup.profile.llm, setup.precision), device)
    model.clip.to(device)
    return Start(model, FrozenLm(model.llm, setup.precision, device, placement), device)


def with_pictures(embeds: Tensor, slots: Tensor, visual: Tensor) -> Tensor:
    """Embeddings (B, S, D) with visual tokens (pictures, k, D) in the `slots` (B, S), in order; a new tensor."""
    return embeds.masked_scatter(slots.unsqueeze(-1), visual.to(embeds.dtype))
