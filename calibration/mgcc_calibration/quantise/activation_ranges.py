"""From an activation's values to the range that eight bits cover: min-max, percentile, entropy, squared error.

Ranges are symmetric, [-t, t] with a zero point of 0, since TensorRT takes no other. Values are gathered as histograms
of their magnitude, one for each group (for the UNet: a group of denoising steps).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 2048
LEVELS = 127  # int8, symmetric
_CANDIDATES = 64  # ranges that the squared error is measured at
_ENTROPY_LEVELS = 128

Counts = NDArray[np.float64]


class Method(enum.StrEnum):
    """How a range is chosen."""

    MIN_MAX = "min-max"  # everything fits
    PERCENTILE = "percentile"  # all but a small share fits
    ENTROPY = "entropy"  # least Kullback-Leibler divergence (the classic TensorRT calibration)
    MSE = "mse"  # least squared error of rounding and clipping together


@dataclass
class Histogram:
    """Magnitudes of one activation in one group; `limit` is the largest of all groups, so that bins agree."""

    limit: float
    counts: Counts

    @classmethod
    def empty(cls, limit: float) -> Histogram:
        return cls(limit, np.zeros(BINS))

    def add(self, values: NDArray[np.floating]) -> None:
        if self.limit > 0 and values.size:
            bins = (np.abs(values.ravel()) * np.float32(BINS / self.limit)).astype(np.int32)
            np.minimum(bins, BINS - 1, out=bins)
            self.counts += np.bincount(bins, minlength=BINS)

    @property
    def centres(self) -> Counts:
        return (np.arange(BINS, dtype=np.float64) + 0.5) * (self.limit / BINS)

    @property
    def power(self) -> float:
        return float(self.counts @ self.centres**2)


def choose_range(groups: Sequence[Histogram], method: Method, percentile: float = 99.99) -> float:
    """The bound t over all groups; 0 where every value was 0.

    Min-max covers every group. With squared error each group's error counts relative to its own power, so that
    quiet denoising steps are not drowned by loud ones. With percentile and entropy each group proposes its own
    bound, and the proposal with the least such error is taken.
    """
    filled = [h for h in groups if h.power > 0]
    if not filled:
        return 0.0
    limit = filled[0].limit
    if method is Method.MIN_MAX:
        return limit
    if method is Method.MSE:
        proposals = [limit * (i + 1) / _CANDIDATES for i in range(_CANDIDATES)]
    elif method is Method.PERCENTILE:
        proposals = [_percentile(h, percentile) for h in filled]
    else:
        proposals = [_entropy(h) for h in filled]
    return min(sorted(set(proposals), reverse=True), key=lambda t: sum(relative_error(h, t) for h in filled))


def relative_error(histogram: Histogram, bound: float) -> float:
    """Expected squared error of int8 over [-bound, bound], relative to the values' power.

    `bound` is above 0. Values are taken as spread evenly over their bin, and the error's mean over it is exact: in a
    bin far narrower than a step it is the error of the bin's own place, in a wider one step**2 / 12. To charge that
    much everywhere would overrate the error of zeros and small values under an outlier, and clip the outlier for it.
    """
    step, width = bound / LEVELS, histogram.limit / BINS
    edges = np.arange(BINS + 1, dtype=np.float64) * width
    levels = np.minimum(np.round(edges / step), LEVELS)  # the nearest, or the last where values are clipped
    # the integral of the squared error from 0: step**3 / 12 for each level on the way, and the way from the last one
    sums = levels * (step**3 / 12) + (edges - levels * step) ** 3 / 3
    return float(histogram.counts @ np.diff(sums)) / width / histogram.power


def _percentile(histogram: Histogram, percentile: float) -> float:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    last = int(np.searchsorted(share, percentile / 100))
    return (min(last, BINS - 1) + 1) * histogram.limit / BINS


def _entropy(histogram: Histogram) -> float:
    """The bound whose quantised distribution is nearest to the clipped one.

    Zeros are left out: after a ReLU or in padding they are exact at any scale and would outweigh the rest.
    """
    counts = histogram.counts.copy()
    counts[0] = 0.0
    best, best_divergence = BINS, np.inf
    for bins in range(_ENTROPY_LEVELS, BINS + 1, _ENTROPY_LEVELS // 8):
        clipped = counts[:bins].copy()
        clipped[-1] += counts[bins:].sum()
        divergence = _divergence(clipped, counts[:bins])
        if divergence < best_divergence:
            best, best_divergence = bins, divergence
    return best * histogram.limit / BINS


def _divergence(reference: Counts, counts: Counts) -> float:
    """KL divergence of `reference` from `counts` merged into the levels and spread out again."""
    edges = np.linspace(0, len(counts), _ENTROPY_LEVELS + 1).astype(np.int64)
    filled = (counts > 0).astype(np.float64)
    sums, places = np.add.reduceat(counts, edges[:-1]), np.add.reduceat(filled, edges[:-1])
    level = np.repeat(np.arange(_ENTROPY_LEVELS), np.diff(edges))
    spread = np.where(filled > 0, (sums / np.maximum(places, 1))[level], 0.0)
    total, mass = reference.sum(), spread.sum()
    if total == 0 or mass == 0:
        return float("inf")
    p, q = reference / total, np.maximum(spread / mass, 1e-12)
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / q[used])))
