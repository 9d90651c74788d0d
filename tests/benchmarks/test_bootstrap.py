"""The interval on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from mgcc_benchmarks.bootstrap import NOTHING, Tally, bootstrap


def test_interval_of_a_share_is_the_binomial_one() -> None:
    """80 of 400: the normal approximation gives 0.2 +- 1.96 sqrt(0.2 x 0.8 / 400)."""
    score = bootstrap([Tally(float(i < 80), 1.0) for i in range(400)])
    assert score.value == 0.2
    assert score.ci95 is not None
    assert score.ci95 == pytest.approx((0.2 - 0.0392, 0.2 + 0.0392), abs=0.004)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        tallies = [Tally(float(v), 1.0) for v in rng.random(60) < 0.4]
        low, high = bootstrap(tallies, seed=trial, resamples=400).ci95 or (1.0, 0.0)
        covered += low <= 0.4 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_items_are_weighed_by_what_they_count() -> None:
    score = bootstrap([Tally(1, 1), Tally(0, 3), NOTHING])
    assert score.value == 0.25
    assert score.ci95 == (0.0, 1.0)


def test_same_seed_same_interval_and_another_one_differs() -> None:
    tallies = [Tally(float(i % 3), 2.0) for i in range(50)]
    assert bootstrap(tallies, seed=3) == bootstrap(tallies, seed=3)
    assert bootstrap(tallies, seed=3, resamples=40).ci95 != bootstrap(tallies, seed=4, resamples=40).ci95


def test_nothing_counted_is_no_score() -> None:
    assert bootstrap([NOTHING, NOTHING]).to_json() == {"value": None, "ci95": [None, None]}
