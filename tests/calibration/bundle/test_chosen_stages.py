"""Chosen stages on disk: what goes in comes out, and nothing stale or damaged does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from mgcc_calibration.bundle.chosen_stages import chosen_stages, keep, stage_key
from mgcc_calibration.bundle.replace_stages import StageChange
from mgcc_calibration.candidates.candidate import Engine
from mgcc_calibration.candidates.selection import Choice, Measurement
from mgcc_calibration.graphs.storage import digest_of
from mgcc_calibration.report import StageOutcome
from mgcc_ref.precision import Precision

CHOSEN = Measurement(Engine.OPENVINO, Precision.INT8, 10, 1.5, {"call": 1.5}, 0.01, 40.0, None)
REFUSED = Measurement(Engine.ONNXRUNTIME, Precision.INT8, 12, None, {}, float("inf"), float("-inf"), None, "broken")
OUTCOME = StageOutcome(
    Choice("unet", CHOSEN, (CHOSEN, REFUSED), 25.0, None), "ranges", 3, {"conv_in": "a rule"}, 40, 10
)


@pytest.fixture
def change(tmp_path: Path) -> StageChange:
    path = tmp_path / "made" / "unet.onnx"
    path.parent.mkdir()
    weight = TensorProto(name="w", dims=[7], data_type=TensorProto.INT8, raw_data=b"weights")
    model = helper.make_model(helper.make_graph([], "unet", [], [], [weight]))
    onnx.save_model(model, path, save_as_external_data=True, location="unet.onnx.data", size_threshold=0)
    return StageChange(path, "openvino", "int8")


def test_what_goes_in_comes_out(change: StageChange, tmp_path: Path) -> None:
    store = chosen_stages(tmp_path / "store")
    _, kept = keep(store, "unet-int8", "a" * 64, (OUTCOME, change))
    found = store.get("unet-int8", "a" * 64)
    assert found == (OUTCOME, kept)
    assert found[0].choice.chosen.engine is Engine.OPENVINO
    assert kept.path.read_bytes() == change.path.read_bytes()
    assert kept.path.with_name("unet.onnx.data").read_bytes() == b"weights"
    for name in ("unet.onnx", "unet.onnx.data"):
        assert kept.path.with_name(name).stat().st_nlink == 1


def test_weights_beside_a_graph_are_part_of_its_digest(change: StageChange) -> None:
    """The graph's own file says where they lie, and no more."""
    graph, before = change.path.read_bytes(), digest_of(change.path)
    change.path.with_name("unet.onnx.data").write_bytes(b"WEIGHTS")
    assert change.path.read_bytes() == graph and digest_of(change.path) != before


def test_another_key_finds_nothing_and_takes_the_place(change: StageChange, tmp_path: Path) -> None:
    """Of the same name alone: `unet-int8-weights` begins like `unet-int8`."""
    store = chosen_stages(tmp_path / "store")
    for name in ("unet-int8", "unet-int8-weights"):
        keep(store, name, "a" * 64, (OUTCOME, change))
    assert store.get("unet-int8", "b" * 64) is None
    keep(store, "unet-int8", "b" * 64, (OUTCOME, change))
    assert store.get("unet-int8", "a" * 64) is None
    assert store.get("unet-int8-weights", "a" * 64) is not None


@pytest.mark.parametrize("name", ["unet.onnx", "unet.onnx.data", "entry.json"])
def test_a_damaged_entry_is_not_found(change: StageChange, tmp_path: Path, name: str) -> None:
    store = chosen_stages(tmp_path / "store")
    _, kept = keep(store, "unet-int8", "a" * 64, (OUTCOME, change))
    (kept.path.parent / name).write_bytes(b"x")
    assert store.get("unet-int8", "a" * 64) is None


def test_a_failed_put_leaves_nothing(change: StageChange, tmp_path: Path) -> None:
    store = chosen_stages(tmp_path / "store")
    with pytest.raises(FileNotFoundError):
        keep(store, "unet-int8", "a" * 64, (OUTCOME, replace(change, path=tmp_path / "absent.onnx")))
    assert list(store.root.iterdir()) == []


def test_the_key_holds_graph_samples_and_settings(bundle, data) -> None:
    source, other = (bundle.file(bundle.manifest.stages[name].file) for name in ("unet", "vae_decoder"))
    key = stage_key("unet", source, data, "settings")
    assert key == stage_key("unet", source, data, "settings")
    fewer = replace(data, manifest=replace(data.manifest, stages={"unet": data.manifest.stages["unet"][1:]}))
    changed = {
        stage_key("unet", other, data, "settings"),
        stage_key("unet", source, fewer, "settings"),
        stage_key("unet", source, data, "other settings"),
    }
    assert len(changed | {key}) == 4
