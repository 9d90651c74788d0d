"""Templates with choices: all wordings are found, each is drawn, and a plain template draws no number."""

from __future__ import annotations

import numpy as np

from mgcc_ref.story.wording.patterns import every_wording, one_wording, weighted

PATTERN = "{the} <walks/runs> <away/off/>"


def test_every_wording_is_the_product_of_the_choices() -> None:
    assert every_wording(PATTERN) == (
        "{the} walks away", "{the} walks off", "{the} walks", "{the} runs away", "{the} runs off", "{the} runs",
    )  # fmt: skip
    assert every_wording("{a} <is/was>, {where}") == ("{a} is, {where}", "{a} was, {where}")
    assert every_wording("{the} leaves") == ("{the} leaves",)


def test_every_wording_is_drawn_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    assert {one_wording(PATTERN, rng) for _ in range(200)} == set(every_wording(PATTERN))


def test_a_plain_template_draws_no_number() -> None:
    """StoryBench's templates are plain: their stories stay the same when training's get more choices."""
    rng, untouched = np.random.default_rng(0), np.random.default_rng(0)
    assert one_wording("{the} leaves", rng) == "{the} leaves"
    assert rng.random() == untouched.random()


def test_a_pattern_counts_by_the_logarithm_of_its_wordings() -> None:
    counted = weighted((PATTERN, "{the} leaves", "{the} <goes/is gone>"))
    assert [counted.count(p) for p in (PATTERN, "{the} leaves", "{the} <goes/is gone>")] == [3, 1, 2]
