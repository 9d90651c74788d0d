"""The ablation's report: shares of each arm's ceiling, parameters, steps and the paper's scores."""

from __future__ import annotations

import pytest

from mgcc_benchmarks.ablation.arms import Arm, Variant
from mgcc_benchmarks.ablation.report import markdown_report, summarise_arms, training_report
from mgcc_benchmarks.bootstrap import Tally
from mgcc_benchmarks.storybench.evaluation import SCORES


def test_the_share_of_the_ceiling_is_of_the_same_unet() -> None:
    """Without boxes 0.3 of 0.6, with boxes 0.3 of 0.9; nothing without the ceiling's pictures."""
    rights = {Arm.GILL: [0.3] * 5, Arm.BOTH: [0.3] * 5, Arm.TRUE_CAPTION: [0.6] * 5, Arm.TRUE_LAYOUT: [0.9] * 5}
    items = [
        {Variant(arm, None): dict.fromkeys(SCORES, Tally(values[i], 1.0)) for arm, values in rights.items()}
        for i in range(5)
    ]
    summary = summarise_arms(items)
    shares = {arm: share["value"] for arm, share in summary["of_ceiling"].items()}
    assert shares[Arm.GILL.value] == pytest.approx(0.5)
    assert shares[Arm.BOTH.value] == pytest.approx(1 / 3, abs=1e-4)
    assert shares[Arm.COGM.value] is None
    assert not {Arm.TRUE_CAPTION.value, Arm.TRUE_LAYOUT.value} & set(shares)
    assert "| GILL | 0.500 [0.500, 0.500] |" in markdown_report(summary)


def test_the_report_states_parameters_steps_and_the_papers_scores() -> None:
    told = training_report(
        {
            "trained_parameters": {"GILL": 1234567},
            "training_steps": {"align": 2000, "grounder": 1600},
            "paper_clip_similarity": {"GILL": 0.641, "MGCC": 0.652},
        }
    )
    assert "| GILL | 1,234,567 |" in told and "2,000 steps" in told and "GILL 0.641, MGCC 0.652" in told


def test_seeds_are_told_and_resampled() -> None:
    """Three seeds of COGM lie apart, BOTH is 0.2 above each: its gain is sure, COGM's own score is not."""
    rates = {0: 0.1, 1: 0.3, 2: 0.7}
    items = []
    for _ in range(60):
        item = {Variant(Arm.COGM, n): dict.fromkeys(SCORES, Tally(rate, 1.0)) for n, rate in rates.items()}
        item |= {Variant(Arm.BOTH, n): dict.fromkeys(SCORES, Tally(rate + 0.2, 1.0)) for n, rate in rates.items()}
        items.append(item | {Variant(Arm.COGM_LONGER, 0): dict.fromkeys(SCORES, Tally(0.2, 1.0))})
    summary = summarise_arms(items)
    assert summary["by_seed"][Arm.COGM.value]["2"]["whole_scene"] == {"value": 0.7, "ci95": [0.7, 0.7]}
    assert list(summary["by_seed"][Arm.COGM_LONGER.value]) == ["0"]
    low, high = summary["scores"][Arm.COGM.value]["whole_scene"]["ci95"]
    assert low < 0.2 and high > 0.5
    assert summary["against_cogm"][Arm.BOTH.value]["whole_scene"] == {"value": 0.2, "ci95": [0.2, 0.2]}
    # one seed is compared with the same seed: 0.2 against 0.1, and 0.3 against 0.2
    assert summary["against_cogm"][Arm.COGM_LONGER.value]["whole_scene"]["value"] == 0.1
    assert summary["against_longer_cogm"][Arm.BOTH.value]["whole_scene"]["value"] == 0.1
    assert "| GILL + COGM, seed 2 |" in markdown_report(summary)
