"""Scores over items with their 95 % intervals: percentile bootstrap, items drawn with replacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
DIGITS = 4


@dataclass(frozen=True)
class Tally:
    """What one item adds to a score: `right` of `counted`; a mean is the sum over how many."""

    right: float
    counted: float


NOTHING = Tally(0.0, 0.0)


@dataclass(frozen=True)
class Score:
    """A ratio over all items; None where nothing was counted."""

    value: float | None
    ci95: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        low, high = self.ci95 or (None, None)
        return {"value": self.value, "ci95": [low, high]}


def bootstrap(tallies: Sequence[Tally], *, seed: int = 0, resamples: int = RESAMPLES) -> Score:
    """The ratio of the sums and its 95 % interval. Items are resampled, not objects: one item's objects hang together.

    A resample in which nothing was counted is left out. The same tallies and seed give the same interval.
    """
    right = np.array([t.right for t in tallies], dtype=np.float64)
    counted = np.array([t.counted for t in tallies], dtype=np.float64)
    if counted.sum() <= 0:
        return Score(None, None)
    rng = np.random.default_rng(seed)
    count = len(tallies)
    # how often each item is drawn, all resamples at once: the sums are then two products
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    below = drawn @ counted
    ratios = (drawn @ right)[below > 0] / below[below > 0]
    low, high = np.percentile(ratios, (2.5, 97.5))
    value = right.sum() / counted.sum()
    return Score(round(float(value), DIGITS), (round(float(low), DIGITS), round(float(high), DIGITS)))
