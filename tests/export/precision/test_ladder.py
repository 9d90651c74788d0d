"""A checked stage at lower precision: held against PyTorch, and raised where its outputs do not bear it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mgcc_export import targets
from mgcc_export.errors import AxisMismatchError, ValueMismatchError
from mgcc_export.graphs.reference import ReferenceCase, compare_graph, reference_cases
from mgcc_export.precision.ladder import Evidence, between, lower_stage
from mgcc_export.precision.weight_widths import Bits, write_quantised
from mgcc_export.targets import TOLERANCES, calibrated_tolerance, fallbacks, tolerance_of
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.manifest import Tolerance
from tests.export.conftest import Toy
from tests.export.precision.small_graphs import types


@pytest.fixture(scope="module")
def cases(toy: Toy) -> list[ReferenceCase]:
    lengths = [*toy.cases, between(toy.cases[1], toy.cases[2])]
    return list(reference_cases(toy.module, toy.spec, lengths, toy.inputs))


def test_a_case_between_two_has_consistent_lengths() -> None:
    assert between({"S": 4, "P": 4, "T": 8}, {"S": 16, "P": 0, "T": 16}) == {"S": 10, "P": 2, "T": 12}
    assert between({"B": 1}, {"B": 4}) == {"B": 2}


def test_fp16_holds_at_all_shapes(toy: Toy, toy_graph: Path, cases: list[ReferenceCase], tmp_path: Path) -> None:
    found = lower_stage(toy_graph, tmp_path / "toy.onnx", toy.spec, Precision.FP16, Evidence(cases))
    assert (found.precision, found.reasons) == (Precision.FP16, ())
    assert found.nodes["float16"] > found.nodes.get("float", 0)
    assert {tuple(p.lengths.items()) for p in found.parity} == {tuple(c.lengths.items()) for c in cases}
    assert max(p.relative_l2 for p in found.parity) <= TOLERANCES[Precision.FP16].relative_l2
    assert [p.name for p in tmp_path.iterdir()] == ["toy.onnx"]  # nothing half done is left


def test_captured_inputs_are_scanned_too(toy: Toy, toy_graph: Path, cases: list[ReferenceCase], tmp_path: Path) -> None:
    loud = {name: value * 30000 if value.dtype == np.float32 else value for name, value in cases[1].feeds.items()}
    found = lower_stage(toy_graph, tmp_path / "toy.onnx", toy.spec, Precision.FP16, Evidence(cases, [loud]))
    assert found.scan.runs == len(cases) + 1
    assert found.scan.excesses
    assert found.nodes["float"] > 1


def test_a_precision_that_is_out_of_tolerance_is_raised(
    toy: Toy, toy_graph: Path, cases: list[ReferenceCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = {**TOLERANCES, Precision.INT8: Tolerance(0.9999999, 1e-6), Precision.INT4: Tolerance(0.9999999, 1e-6)}
    monkeypatch.setattr(targets, "TOLERANCES", strict)
    monkeypatch.setattr("mgcc_export.precision.weight_widths.LEAST_ELEMENTS", 16)
    monkeypatch.setattr("mgcc_export.precision.weight_widths.LEAST_CHANNELS", 4)
    found = lower_stage(toy_graph, tmp_path / "toy.onnx", toy.spec, Precision.INT4, Evidence(cases))
    assert found.precision is Precision.FP16
    assert [r.split(":")[0] for r in found.reasons] == ["int4", "int8"]
    assert "no weight is of a form" in found.reasons[0] and "differs from PyTorch" in found.reasons[1]
    assert TensorProto.INT8 not in types(tmp_path / "toy.onnx").values()


def test_fp32_that_is_out_of_tolerance_is_an_error(
    toy: Toy, toy_graph: Path, cases: list[ReferenceCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "TOLERANCES", dict.fromkeys(Precision, Tolerance(1.1, 0.0)))
    monkeypatch.setattr("mgcc_export.graphs.validate.NOTHING", -1.0)  # the toy's differences are no more than that
    with pytest.raises(ValueMismatchError):
        lower_stage(toy_graph, tmp_path / "toy.onnx", toy.spec, Precision.FP16, Evidence(cases))


def test_another_quantiser_can_stand_in(toy: Toy, toy_graph: Path, cases: list[ReferenceCase], tmp_path: Path) -> None:
    """The seam for calibrated quantisers: ONNX in, ONNX out."""
    seen: list[Path] = []

    def nothing_left(source: Path, target: Path) -> None:
        seen.append(source)

    def quantise(source: Path, target: Path) -> str:
        seen.append(source)
        assert TensorProto.FLOAT16 in types(source).values()
        write_quantised(source, target, Bits.EIGHT)
        return "one spared"

    found = lower_stage(
        toy_graph, tmp_path / "toy.onnx", toy.spec, Precision.INT8, Evidence(cases), quantise=(nothing_left, quantise)
    )
    assert len(seen) == 2 and found.remarks == ("one spared",)
    assert found.tolerance == calibrated_tolerance("toy")


def test_where_the_quantiser_misses_weights_alone_are_tried(
    toy: Toy, toy_graph: Path, cases: list[ReferenceCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mgcc_export.precision.weight_widths.LEAST_ELEMENTS", 16)
    monkeypatch.setattr("mgcc_export.precision.weight_widths.LEAST_CHANNELS", 4)

    def spoil(source: Path, target: Path) -> str:
        model = onnx.load(source)
        for weight in model.graph.initializer:
            if weight.data_type == TensorProto.FLOAT16:
                weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
        onnx.save(model, target)
        return ""

    found = lower_stage(
        toy_graph, tmp_path / "toy.onnx", toy.spec, Precision.INT8, Evidence(cases), quantise=(spoil, spoil)
    )
    assert found.tolerance == TOLERANCES[Precision.INT8]
    assert (found.precision, found.reasons) == (Precision.INT8, ())
    assert "weights alone" in found.remarks[0] and TensorProto.INT8 in types(tmp_path / "toy.onnx").values()


def test_what_boxes_are_read_from_is_held_to_more() -> None:
    """W8A8 of the vision tower at 2.5e-2 moved something in a fifth of the pictures."""
    assert tolerance_of("vision_encoder", Precision.INT8).relative_l2 < 2.5e-2 < TOLERANCES[Precision.INT8].relative_l2
    assert tolerance_of("vision_encoder", Precision.INT4) == tolerance_of("vision_encoder", Precision.INT8)
    assert tolerance_of("vision_encoder", Precision.FP16) == TOLERANCES[Precision.FP16]
    assert tolerance_of("unet", Precision.INT8) == TOLERANCES[Precision.INT8]


def test_a_lowered_graph_with_another_axis_is_refused(
    toy: Toy, toy_graph: Path, cases: list[ReferenceCase], tmp_path: Path
) -> None:
    model = onnx.load(toy_graph)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(model, tmp_path / "toy.onnx")
    with pytest.raises(AxisMismatchError):
        compare_graph(toy_graph, tmp_path / "toy.onnx", toy.spec, cases, TOLERANCES[Precision.FP32])


def test_the_ladder_ends_with_fp32() -> None:
    assert fallbacks(Precision.INT8) == (Precision.INT8, Precision.FP16, Precision.FP32)
    assert fallbacks(Precision.FP32) == (Precision.FP32,)
    limits = [TOLERANCES[p].relative_l2 for p in fallbacks(Precision.INT4)]
    assert limits == sorted(limits, reverse=True)


def test_a_stage_without_a_weight_for_the_precision_takes_the_next(
    toy: Toy, toy_graph: Path, cases: list[ReferenceCase], tmp_path: Path
) -> None:
    """8 x 8 weights have no blocks of 64 inputs, and are too small for 8 bits: no stage is called int4 that is not."""
    found = lower_stage(toy_graph, tmp_path / "toy.onnx", toy.spec, Precision.INT4, Evidence(cases))
    assert found.precision is Precision.FP16
    assert found.reasons == tuple(f"{p}: no weight is of a form that takes it" for p in ("int4", "int8"))


def test_weights_beyond_a_file_of_protocol_buffers(
    toy: Toy, toy_graph: Path, cases: list[ReferenceCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that a stage of many gigabytes goes through, with the limit at a hundred bytes."""
    monkeypatch.setattr("mgcc_calibration.graphs.storage.EXTERNAL_DATA_BYTES", 100)
    monkeypatch.setattr("mgcc_export.precision.weight_widths.LEAST_ELEMENTS", 16)
    monkeypatch.setattr("mgcc_export.precision.weight_widths.LEAST_CHANNELS", 4)
    source = toy.export(tmp_path / "source" / "toy.onnx")
    assert (tmp_path / "source" / "toy.onnx.data").is_file()
    target = tmp_path / "low" / "toy.onnx"
    found = lower_stage(source, target, toy.spec, Precision.INT8, Evidence(cases))
    assert found.precision is Precision.INT8
    assert {p.name for p in target.parent.iterdir()} == {"toy.onnx", "toy.onnx.data"}
    tensors = onnx.load(target, load_external_data=False).graph.initializer
    within = [tensor.name for tensor in tensors if len(tensor.raw_data) > 1024]
    assert not within and any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors)
    onnx.checker.check_model(target, full_check=True)
