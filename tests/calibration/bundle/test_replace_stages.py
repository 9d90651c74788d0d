"""A bundle whose UNets share a file of weights, lowered in one of them or both: what is still read stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from mgcc_calibration.bundle.replace_stages import StageChange
from mgcc_calibration.errors import CalibrationError
from mgcc_calibration.graphs.share_weights import share_weights
from mgcc_calibration.graphs.storage import files_of
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import stage
from mgcc_runtime.device.cpu_features import cpu_features
from tests.calibration.lowered import write_replaced
from tests.runtime.golden_data import example_inputs
from tests.runtime.tiny_bundle import DIMENSIONS, make_bundle, make_stage, reseal

GATED = replace(DIMENSIONS, gated=True)
PLAIN = stage(GATED, "unet_plain")


@pytest.fixture
def shared(tmp_path: Path) -> Bundle:
    """Both UNets with the same first matrix, which lies in unet.onnx.data.

    Made by hand, so that a single matrix is shared; what the exporter shares is in tests/export/test_shared_unets.py.
    """
    root = make_bundle(tmp_path / "fp32", GATED)
    unet, plain = (onnx.load(root / f"{name}.onnx") for name in ("unet", "unet_plain"))
    first, same = (next(w for w in m.graph.initializer if list(w.dims) == [32, 32]) for m in (unet, plain))
    same.raw_data = first.raw_data
    onnx.save(plain, root / "unet_plain.onnx")
    assert share_weights(root / "unet.onnx", root / "unet_plain.onnx") == 32 * 32 * 4
    return Bundle.open(reseal(root))


def answer(root: Path) -> np.ndarray:
    session = ort.InferenceSession(root / "unet_plain.onnx", providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["prediction"], example_inputs(PLAIN.inputs))[0]
    return found


def other_unet(folder: Path) -> StageChange:
    folder.mkdir()
    onnx.save(make_stage(stage(GATED, "unet"), GATED, seed=3), folder / "unet.onnx")
    return StageChange(folder / "unet.onnx", "onnxruntime", "int8")


def test_a_lowered_bundle_says_what_it_was_measured_on(shared: Bundle, tmp_path: Path) -> None:
    made = write_replaced(shared, {"unet": other_unet(tmp_path / "low")}, tmp_path / "out").manifest
    assert shared.manifest.measured_on is None and made.measured_on is not None
    assert made.measured_on.features == cpu_features() and made.measured_on.cores > 0


def test_the_other_unet_keeps_the_file_it_reads(shared: Bundle, tmp_path: Path) -> None:
    made = write_replaced(shared, {"unet": other_unet(tmp_path / "low")}, tmp_path / "out")
    assert made.has("unet.onnx.data")
    np.testing.assert_array_equal(answer(made.root), answer(shared.root))
    for bundle in (shared, made):
        onnx.checker.check_model(bundle.root / "unet_plain.onnx")  # weights with a second hard link are refused


def test_a_graph_that_was_chosen_as_it_was_brings_its_file(shared: Bundle, tmp_path: Path) -> None:
    changes = {
        name: StageChange(shared.root / f"{name}.onnx", "onnxruntime", "fp32") for name in ("unet", "unet_plain")
    }
    made = write_replaced(shared, changes, tmp_path / "out")
    assert made.manifest.files["unet.onnx.data"] == shared.manifest.files["unet.onnx.data"]
    np.testing.assert_array_equal(answer(made.root), answer(shared.root))


def test_the_bundles_share_no_file(shared: Bundle, tmp_path: Path) -> None:
    """One lowered from another, and two from one: each is a bundle of its own."""
    change = other_unet(tmp_path / "low")
    made = [write_replaced(shared, {"unet": change}, tmp_path / name) for name in ("a", "b")]
    folders = [bundle.root for bundle in (shared, *made)] + [change.path.parent]
    assert {path.stat().st_nlink for folder in folders for path in folder.rglob("*") if path.is_file()} == {1}


def test_a_link_to_the_folder_stays_one(shared: Bundle, tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large-disk")
    made = write_replaced(shared, {"unet": other_unet(tmp_path / "low")}, tmp_path / "out")
    assert (tmp_path / "out").is_symlink() and made.root == tmp_path / "large-disk"
    Bundle.open(tmp_path / "out")


def test_a_file_that_nobody_reads_any_more_goes(shared: Bundle, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    onnx.save(make_stage(PLAIN, GATED), tmp_path / "plain" / "unet_plain.onnx")
    plain = StageChange(tmp_path / "plain" / "unet_plain.onnx", "onnxruntime", "int8")
    changes = {"unet": other_unet(tmp_path / "low"), "unet_plain": plain}
    made = write_replaced(shared, changes, tmp_path / "out")
    assert not made.has("unet.onnx.data")


def test_two_files_of_one_name_are_refused(shared: Bundle, tmp_path: Path) -> None:
    changed = other_unet(tmp_path / "low")
    model = onnx.load(changed.path)
    onnx.save_model(model, changed.path, save_as_external_data=True, location="unet.onnx.data", size_threshold=1024)
    assert [path.name for path in files_of(changed.path)] == ["unet.onnx", "unet.onnx.data"]
    with pytest.raises(CalibrationError, match=r"reads unet\.onnx\.data, of which another stage has its own"):
        write_replaced(shared, {"unet": changed}, tmp_path / "out")
    assert not list(tmp_path.glob("*.partial"))
