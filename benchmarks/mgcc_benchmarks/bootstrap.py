"""Scores over items with their 95 % intervals: percentile bootstrap, items (and runs) drawn with replacement.

A run is one seed's tallies, one per item. Where there are several runs of the same items, a resample draws runs as well
as items, so that its interval covers another seed as well as other items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
DIGITS = 4


@dataclass(frozen=True)
class Tally:
    """One item's part of a score: `right` of `counted`, or a sum and the number of its terms."""

    right: float
    counted: float


NOTHING = Tally(0.0, 0.0)

Run = Sequence[Tally]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A ratio over all items, or the difference of two; None where nothing was counted."""

    value: float | None
    ci95: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        low, high = self.ci95 or (None, None)
        return {"value": self.value, "ci95": [low, high]}


UNCOUNTED = Score(None, None)


def bootstrap(tallies: Run, *, seed: int = 0, resamples: int = RESAMPLES) -> Score:
    """The ratio of the sums and its 95 % interval. Items are resampled, since objects of one are not independent.

    A resample in which nothing was counted is left out. The same tallies and seed give the same interval.
    """
    return bootstrap_runs([tallies], seed=seed, resamples=resamples)


def bootstrap_runs(runs: Sequence[Run], *, seed: int = 0, resamples: int = RESAMPLES) -> Score:
    """As `bootstrap`, over several runs of the same items: the sums go over all runs, and both are resampled."""
    right, counted = _columns(runs)
    if counted.sum() <= 0:
        return UNCOUNTED
    draws = _Draws.of(len(right), len(runs), seed, resamples)
    above, below = draws.sums(right), draws.sums(counted)
    return _score(float(right.sum() / counted.sum()), above[below > 0] / below[below > 0])


def difference(ours: Run, base: Run, *, seed: int = 0) -> Score:
    """Ours minus base with its 95 % interval; both are resampled together, since they draw the same items.

    ValueError if they differ in the number of items.
    """
    return difference_runs([ours], [base], seed=seed)


def difference_runs(ours: Sequence[Run], base: Sequence[Run], *, seed: int = 0) -> Score:
    """As `difference`, over pairs of runs: the first of `ours` is of the same items and seed as the first of `base`."""
    right, counted = _columns(ours)
    base_right, base_counted = _columns(base)
    if right.shape != base_right.shape:
        raise ValueError(f"{right.shape} items and runs against {base_right.shape}; only pairs can be compared")
    if counted.sum() <= 0 or base_counted.sum() <= 0:
        return UNCOUNTED
    draws = _Draws.of(len(right), len(ours), seed, RESAMPLES)
    below, base_below = draws.sums(counted), draws.sums(base_counted)
    kept = (below > 0) & (base_below > 0)
    drawn = draws.sums(right)[kept] / below[kept] - draws.sums(base_right)[kept] / base_below[kept]
    return _score(float(right.sum() / counted.sum() - base_right.sum() / base_counted.sum()), drawn)


@dataclass(frozen=True)
class _Draws:
    """How often each item (R, N) and each run (R, S) is drawn, for all R resamples: sums become matrix products."""

    items: Floats
    runs: Floats

    @classmethod
    def of(cls, items: int, runs: int, seed: int, resamples: int) -> _Draws:
        rng = np.random.default_rng(seed)
        drawn = [rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64) for n in (items, runs)]
        return cls(*drawn)

    def sums(self, values: Floats) -> Floats:
        """The sum of `values` (N, S) over each resample: (R,)."""
        found: Floats = ((self.items @ values) * self.runs).sum(axis=1)
        return found


def _columns(runs: Sequence[Run]) -> tuple[Floats, Floats]:
    """`right` and `counted`, (N, S) each; (0,) where there are no runs."""
    right = np.array([[t.right for t in run] for run in runs], dtype=np.float64)
    counted = np.array([[t.counted for t in run] for run in runs], dtype=np.float64)
    return right.T, counted.T


def _score(value: float, drawn: Floats) -> Score:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Score(_rounded(value), (_rounded(low), _rounded(high)))


def _rounded(value: float) -> float:
    return round(float(value), DIGITS) + 0.0  # -0.0 becomes 0.0
