"""The stage cache is keyed by content and never gives half a stage or a damaged one."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from mgcc_export.stages.cache import BuiltStage, stage_cache, stage_key
from mgcc_export.stages.stage import Stage, collect_stages
from mgcc_ref.model import MgccModel, load_model


@pytest.fixture
def stage(tiny: MgccModel) -> Stage:
    return collect_stages(tiny, ["vae_decoder"])[0]


def _fill(folder: Path) -> BuiltStage:
    (folder / "x.onnx").write_bytes(b"graph")
    return BuiltStage(folder, {}, 3, 5, 1.0, 2.0, [])


def test_the_key_repeats_for_the_same_content(tiny: MgccModel, stage: Stage) -> None:
    (again,) = collect_stages(load_model("tiny"), ["vae_decoder"])
    assert stage_key(stage, tiny.profile, "fp32") == stage_key(again, tiny.profile, "fp32")


def test_a_weight_a_setting_or_the_precision_changes_the_key(tiny: MgccModel, stage: Stage) -> None:
    module = copy.deepcopy(stage.module)
    with torch.no_grad():
        next(module.parameters()).flatten()[0] += 1e-6
    keys = {
        stage_key(stage, tiny.profile, "fp32"),
        stage_key(stage, tiny.profile, "int8"),
        stage_key(dataclasses.replace(stage, module=module), tiny.profile, "fp32"),
        stage_key(stage, dataclasses.replace(tiny.profile, max_context=128), "fp32"),
    }
    assert len(keys) == 4


def test_what_was_put_is_got(tmp_path: Path) -> None:
    cache = stage_cache(tmp_path)
    assert cache.get("a", "0" * 64) is None
    built = cache.put("a", "0" * 64, _fill)
    assert cache.get("a", "0" * 64) == built
    assert (built.folder / "x.onnx").read_bytes() == b"graph"
    assert built.nodes == 3


def test_a_failed_stage_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> BuiltStage:
        _fill(folder)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        stage_cache(tmp_path).put("a", "0" * 64, fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"grap", b"Graph"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: bytes) -> None:
    cache = stage_cache(tmp_path)
    (cache.put("a", "0" * 64, _fill).folder / "x.onnx").write_bytes(damage)
    assert cache.get("a", "0" * 64) is None
    assert (cache.put("a", "0" * 64, _fill).folder / "x.onnx").read_bytes() == b"graph"


def test_old_entries_of_a_stage_go_others_stay(tmp_path: Path) -> None:
    cache = stage_cache(tmp_path)
    cache.put("other", "f" * 64, _fill)
    for digit in "0123":
        cache.put("a", digit * 64, _fill)
    assert cache.get("a", "3" * 64)
    assert cache.get("other", "f" * 64)
    assert len(list(tmp_path.glob("a-*"))) == 2
