"""What a build is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mgcc_export.targets import Recipe
from mgcc_ref.config import Profile, get_profile
from mgcc_runtime.contract import Grounder


@dataclass(frozen=True)
class BuildOptions:
    """What to build and where. `profile` is a name or a file; `weights` a folder, "random", or None for its own."""

    profile: str
    recipe: Recipe
    out: Path
    cache: Path
    weights: Path | Literal["random"] | None = None
    stages: tuple[str, ...] = ()
    captured: Path | None = None  # calibration data: scanned for what fp16 cannot hold, source of int8 ranges
    grounders: tuple[Grounder, ...] = ()  # of the bundle; none: those of the profile
    layout_examples: Path | None = None  # of the in-context grounder; None: ours

    def chosen_profile(self) -> Profile:
        """The profile, with the grounders that were asked for; ProfileError."""
        found = get_profile(self.profile)
        return replace(found, grounders=self.grounders) if self.grounders else found

    @property
    def profile_name(self) -> str:
        return get_profile(self.profile).name
