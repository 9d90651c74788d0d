"""The speed-up with its interval, from the ratio of each round's two times."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mgcc_benchmarks.bootstrap import DIGITS, Score, Tally, bootstrap

#: Fewer measurements than this show too little of their spread: an interval drawn from them would look too narrow.
LEAST_DRAWN = 10
#: `bootstrap` rounds what it gives; logarithms would lose digits that the ratio shows.
_FINER = 1000.0


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0) -> Score:
    """Geometric mean of theirs / ours over the rounds, and its 95 % bootstrap interval; above 1 ours is faster.

    Both sides of a round ran one after the other, so what slowed the machine down slowed both. The geometric mean
    treats both alike: exchanging them gives the reciprocal. ValueError if the rounds do not pair up.
    """
    if len(ours) != len(theirs) or not ours or min(*ours, *theirs) <= 0:
        raise ValueError(f"{len(ours)} and {len(theirs)} times, expected as many of each, all above 0")
    logs = bootstrap([Tally(_FINER * math.log(t / o), 1.0) for o, t in zip(ours, theirs, strict=True)], seed=seed)
    assert logs.value is not None and logs.ci95 is not None
    value, low, high = (round(math.exp(v / _FINER), DIGITS) for v in (logs.value, *logs.ci95))
    return Score(value, (low, high))


def drop_weak_interval(score: Score, count: int) -> Score:
    """The score of `count` measurements, without its interval where they are too few for one."""
    return score if count >= LEAST_DRAWN else Score(score.value, None)


def mean_score(values: Sequence[float], *, seed: int = 0) -> Score:
    """Mean of single measurements with its 95 % bootstrap interval."""
    return bootstrap([Tally(value, 1.0) for value in values], seed=seed)
