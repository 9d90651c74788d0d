"""The ablation's arms draw what the reference draws, and its arithmetic is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mgcc_benchmarks.ablation_arms import (
    CEILINGS,
    TRAINED_ARMS,
    Arm,
    ArmsPainter,
    Variant,
    alignment_folder,
    grounder_folder,
    variants,
)
from mgcc_benchmarks.ablation_report import chart, difference, markdown_table, summarise_arms
from mgcc_benchmarks.ablation_train import TrainingSteps, trainings
from mgcc_benchmarks.bootstrap import Tally
from mgcc_benchmarks.storybench import SCORES
from mgcc_ref.config import get_profile
from mgcc_ref.model import Alignment, MgccModel, load_model
from mgcc_ref.pipeline import ReferencePipeline
from mgcc_ref.refiner import Refiner
from mgcc_ref.story.bench import Suite, bench_item, setting_of
from mgcc_ref.weights import WeightsError, save_module
from mgcc_runtime.verify import psnr_db
from tests.tolerances import FP32_IMAGE_PSNR_DB

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of all arms of the tiny profile, each from another seed."""
    root = tmp_path_factory.mktemp("ablation")
    for seed in SEEDS:
        for offset, arm in ((10, Arm.GILL), (10, Arm.CMRM), (30, Arm.GILL_LONGER)):
            model = _with_refiner(load_model("tiny", "random", seed=offset + seed), refined=arm.refined)
            save_module(Alignment(model), alignment_folder(root, arm, seed) / "alignment.safetensors")
        save_module(
            load_model("tiny", "random", seed=20 + seed).grounder, grounder_folder(root, seed) / "grounder.safetensors"
        )
    return root


def _with_refiner(model: MgccModel, *, refined: bool) -> MgccModel:
    if not refined:
        profile = model.profile
        state = torch.random.get_rng_state()
        torch.manual_seed(3)
        config = type(profile.refiner)(**{**vars(profile.refiner), "cmrm_blocks": 0})
        model.refiner = Refiner(
            config, profile.llm.feature_dim, profile.llm.hidden, profile.clip.text_positions, profile.clip.text_hidden
        )
        torch.random.set_rng_state(state)
    return model


@pytest.mark.slow
def test_each_arm_is_the_reference_with_its_modules(folder: Path) -> None:
    item = bench_item(Suite.STORIES, setting_of(Suite.STORIES, "1"), 0)
    painter = ArmsPainter(folder, SEEDS, profile="tiny", steps=4)
    drawn = painter.draw(item, seed=5)
    assert set(drawn) == set(variants(SEEDS))
    for arm in TRAINED_ARMS:
        model = load_model("tiny")
        single = ArmsPainter(folder, (1,), profile="tiny", steps=4)
        imagination = single._imaginations[alignment_folder(folder, arm, 1)]
        model.llm.image_tokens, model.refiner = imagination.tokens, imagination.refiner
        model.grounder = single._grounders[1]
        expected = ReferencePipeline(model).generate(item.inputs(), seed=5, steps=4, boxes=None if arm.grounded else ())
        found = drawn[Variant(arm, 1)]
        assert psnr_db(np.asarray(found.image), np.asarray(expected.image)) >= FP32_IMAGE_PSNR_DB, arm
        assert len(found.boxes) == len(expected.layout.objects)


@pytest.mark.slow
def test_arms_differ_by_what_they_are_told(folder: Path) -> None:
    painter = ArmsPainter(folder, (0,), profile="tiny", steps=2)
    drawn = painter.draw(bench_item(Suite.STORIES, setting_of(Suite.STORIES, "1"), 1), seed=0)
    pictures = {variant: d.image.tobytes() for variant, d in drawn.items()}
    assert pictures[Variant(Arm.GILL, 0)] != pictures[Variant(Arm.CMRM, 0)]
    assert pictures[Variant(Arm.GILL, 0)] != pictures[Variant(Arm.GILL_LONGER, 0)]
    assert len(drawn[Variant(Arm.TRUE_LAYOUT, None)].boxes) > 0
    assert not drawn[Variant(Arm.TRUE_CAPTION, None)].boxes
    assert pictures[Variant(Arm.TRUE_CAPTION, None)] != pictures[Variant(Arm.TRUE_LAYOUT, None)]


def test_absent_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights-gill-0/alignment\.safetensors are missing"):
        ArmsPainter(tmp_path, (0,), profile="tiny")


def test_both_kinds_of_alignment_train_alike(tmp_path: Path) -> None:
    runs = {run.name: run for run in trainings(tmp_path, (4,), TrainingSteps(align=7, grounder=9))}
    assert list(runs) == ["align-gill-4", "align-cmrm-4", "grounder-4", "align-gill-longer-4"]
    assert runs["align-gill-4"].options == (*runs["align-cmrm-4"].options, "--cmrm-blocks", "0")
    assert runs["align-gill-4"].options[2:4] == ("--steps", "7")
    assert runs["grounder-4"].options[2:4] == ("--steps", "9")
    longer = runs["align-gill-longer-4"]
    assert longer.options[2:4] == ("--steps", "21") and longer.after == "align-gill-4"
    assert longer.options[4:] == runs["align-gill-4"].options[4:]
    assert get_profile("story").refiner.cmrm_blocks > 0


def _items(rights: dict[Arm, list[float]]) -> list[dict[Variant, dict[str, Tally]]]:
    count = len(next(iter(rights.values())))
    return [
        {Variant(arm, None): dict.fromkeys(SCORES, Tally(values[i], 1.0)) for arm, values in rights.items()}
        for i in range(count)
    ]


def test_a_gain_is_found_where_there_is_one_and_only_there() -> None:
    rng = np.random.default_rng(0)
    base = (rng.random(400) < 0.5).astype(float)
    better = np.maximum(base, rng.random(400) < 0.3)
    rights = {Arm.GILL: base, Arm.CMRM: base, Arm.COGM: better, Arm.BOTH: better}
    summary = summarise_arms(_items({arm: list(values) for arm, values in rights.items()}))
    gain = summary["against_gill"][Arm.COGM.value]["whole_scene"]
    assert gain["ci95"][0] > 0.05
    assert gain["value"] == pytest.approx(better.mean() - base.mean(), abs=1e-4)
    assert summary["against_gill"][Arm.CMRM.value]["whole_scene"] == {"value": 0.0, "ci95": [0.0, 0.0]}
    assert summary["scores"][CEILINGS[0].value]["whole_scene"]["value"] is None
    table = markdown_table(summary)
    assert "not measured" in table
    assert chart(summary, "title").size[0] > 500


def test_a_difference_is_paired() -> None:
    """The same items in both columns: their common ups and downs are no uncertainty of the difference."""
    rng = np.random.default_rng(1)
    base = rng.random(200)
    ours = [Tally(float(v) + 0.1, 1.0) for v in base]
    found = difference(ours, [Tally(float(v), 1.0) for v in base], seed=0)
    assert found["ci95"] == [0.1, 0.1]
