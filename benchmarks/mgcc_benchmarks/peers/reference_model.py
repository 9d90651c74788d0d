"""The reference's model that a bundle was built from."""

from __future__ import annotations

from pathlib import Path

from mgcc_benchmarks.peers.client import PeerError
from mgcc_ref.model import MgccModel, load_model
from mgcc_ref.weights import WeightsError


def open_reference(profile: str, weights: str) -> MgccModel:
    """`profile`: what `--profile` takes; `weights`: a folder, "random", or "" for the profile's own.

    PeerError if the weights are missing or not the profile's.
    """
    try:
        if weights == "random":
            return load_model(profile, "random")
        return load_model(profile, Path(weights) if weights else None)
    except WeightsError as error:
        raise PeerError(str(error)) from None
