"""An object and its place in the picture to come: what both grounders give."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroundedObject:
    label: str
    box: tuple[float, float, float, float]  # xyxy in [0, 1]
    score: float
