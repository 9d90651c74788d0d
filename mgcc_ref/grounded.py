"""The output of both grounders: an object and its box in the next picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroundedObject:
    label: str
    box: tuple[float, float, float, float]  # xyxy in [0, 1]
    score: float
