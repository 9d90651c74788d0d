"""The interval on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from mgcc_benchmarks.bootstrap import NOTHING, Tally, bootstrap, bootstrap_runs, difference, difference_runs


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


def test_a_difference_is_paired() -> None:
    """The same items in both columns: their common ups and downs are no uncertainty of the difference."""
    base = np.random.default_rng(1).random(200)
    ours = [Tally(float(v) + 0.1, 1.0) for v in base]
    assert difference(ours, [Tally(float(v), 1.0) for v in base]).to_json() == {"value": 0.1, "ci95": [0.1, 0.1]}
    assert difference(ours, [NOTHING] * 200).value is None


def test_only_pairs_are_compared() -> None:
    with pytest.raises(ValueError, match="only pairs can be compared"):
        difference([Tally(1, 1)] * 3, [Tally(1, 1)] * 2)


def test_runs_that_differ_widen_the_interval_and_equal_ones_do_not() -> None:
    rng = np.random.default_rng(2)
    items = rng.random(300) < 0.5
    runs = [[Tally(float(v), 1.0) for v in items]] * 3
    assert bootstrap_runs(runs) == bootstrap(runs[0])
    rates = (0.2, 0.5, 0.8)
    apart = bootstrap_runs([[Tally(float(v), 1.0) for v in rng.random(300) < rate] for rate in rates])
    assert apart.value == pytest.approx(0.5, abs=0.05)
    assert apart.ci95 is not None
    # one resample in 27 is three times the lowest run, one the highest: 3.7 %, more than the 2.5 % of a side
    assert apart.ci95[0] < 0.25 and apart.ci95[1] > 0.75


def test_differences_of_runs_are_paired_run_by_run() -> None:
    """Runs lie far apart, and every one of ours is the same 0.1 better than its pair: no doubt is left."""
    base = [[Tally(rate, 1.0)] * 40 for rate in (0.1, 0.4, 0.8)]
    ours = [[Tally(t.right + 0.1, 1.0) for t in run] for run in base]
    assert difference_runs(ours, base).ci95 == (0.1, 0.1)
    low, high = difference_runs(ours, base[::-1]).ci95 or (0.0, 0.0)
    assert low < -0.3 and high > 0.5
