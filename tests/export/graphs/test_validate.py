"""Validation accepts the right graph, and each known way of being wrong fails under its own name."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from mgcc_export.errors import AxisMismatchError, NameMismatchError, ShapeMismatchError, ValueMismatchError
from mgcc_export.graphs.reference import compare_graph, reference_cases
from mgcc_export.graphs.validate import FP32_TOLERANCE, check_result_shape, check_values
from mgcc_runtime.contract import DType, TensorSpec


def _altered(path: Path, folder: Path, change) -> Path:
    """A copy of the graph after `change(graph)`."""
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, folder / "altered.onnx")
    return folder / "altered.onnx"


def _rename_axis(value: onnx.ValueInfoProto, place: int, name: str) -> None:
    value.type.tensor_type.shape.dim[place].dim_param = name


def _validate(toy, path: Path, module: nn.Module | None = None) -> list:
    cases = reference_cases(module or toy.module, toy.spec, toy.cases, toy.inputs)
    return compare_graph(path, path, toy.spec, cases, FP32_TOLERANCE)


def test_the_right_graph_is_accepted_at_every_case(toy, toy_graph: Path) -> None:
    found = _validate(toy, toy_graph)
    assert [p.lengths for p in found[:: len(toy.spec.outputs)]] == toy.cases
    assert max(p.relative_l2 for p in found) < 1e-5  # fp32 sums in another order


def test_a_wrong_weight_fails_and_the_message_has_the_numbers(toy, toy_graph: Path, tmp_path: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        weight = next(w for w in graph.initializer if list(w.dims) == [8, 8] and w.data_type == onnx.TensorProto.FLOAT)
        values = numpy_helper.to_array(weight).copy()
        values[0, 0] += 0.5
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))

    with pytest.raises(ValueMismatchError, match=r"of stage toy differs .* max difference .* \(at most 0.001\)"):
        _validate(toy, _altered(toy_graph, tmp_path, change))


def test_another_modules_weights_fail(toy, toy_graph: Path) -> None:
    other = copy.deepcopy(toy.module)
    with torch.no_grad():
        other.project.bias += 0.1
    with pytest.raises(ValueMismatchError):
        _validate(toy, toy_graph, other)


def test_swapped_axis_names_fail(toy, toy_graph: Path, tmp_path: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        _rename_axis(graph.input[0], 1, "P")
        _rename_axis(graph.input[1], 1, "S")

    with pytest.raises(AxisMismatchError, match="axis 1 of x of stage toy is 'P' in the graph, expected 'S'"):
        _validate(toy, _altered(toy_graph, tmp_path, change))


def test_an_axis_that_became_fixed_fails(toy, toy_graph: Path, tmp_path: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        graph.input[1].type.tensor_type.shape.dim[1].dim_value = 3

    with pytest.raises(AxisMismatchError, match="axis 1 of past of stage toy is 3 in the graph, expected 'P'"):
        _validate(toy, _altered(toy_graph, tmp_path, change))


def test_swapped_inputs_fail(toy, toy_graph: Path, tmp_path: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        first, second = copy.deepcopy(graph.input[0]), copy.deepcopy(graph.input[1])
        graph.input[0].CopyFrom(second)
        graph.input[1].CopyFrom(first)

    with pytest.raises(NameMismatchError, match="the inputs of stage toy's graph are past, x, mask, expected x, past"):
        _validate(toy, _altered(toy_graph, tmp_path, change))


def test_another_element_type_fails(toy, toy_graph: Path, tmp_path: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        graph.input[2].type.tensor_type.elem_type = onnx.TensorProto.FLOAT

    with pytest.raises(ShapeMismatchError, match="mask of stage toy is FLOAT in the graph, expected bool"):
        _validate(toy, _altered(toy_graph, tmp_path, change))


def test_another_fixed_length_fails(toy, toy_graph: Path, tmp_path: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        graph.output[0].type.tensor_type.shape.dim[2].dim_value = 9

    with pytest.raises(ShapeMismatchError, match=r"mixed of stage toy is .* expected"):
        _validate(toy, _altered(toy_graph, tmp_path, change))


def test_a_result_of_another_shape_fails() -> None:
    tensor = TensorSpec("present", DType.FLOAT32, (1, "T", 8), "")
    with pytest.raises(ShapeMismatchError, match=r"came out as \(1, 3, 8\) at S=2, T=4, expected \(1, 4, 8\)"):
        check_result_shape("toy", tensor, {"S": 2, "T": 4}, (1, 3, 8))


def test_not_a_number_fails() -> None:
    wrong = np.array([1.0, np.nan], np.float32)
    with pytest.raises(ValueMismatchError, match="y of stage toy holds NaN or infinity at fixed shapes"):
        check_values("toy", "y", {}, np.ones(2, np.float32), wrong, FP32_TOLERANCE)


def test_a_small_relative_difference_is_accepted() -> None:
    values = np.linspace(-1e3, 1e3, 101, dtype=np.float32)
    assert check_values("toy", "y", {}, values, values * np.float32(1.0005), FP32_TOLERANCE).max_difference > 0.1


@pytest.mark.parametrize("scale", [1.002, -1.0, 0.0])
def test_a_larger_one_is_not(scale: float) -> None:
    values = np.linspace(-1e3, 1e3, 101, dtype=np.float32)
    with pytest.raises(ValueMismatchError):
        check_values("toy", "y", {}, values, values * np.float32(scale), FP32_TOLERANCE)


def test_rounding_of_what_is_next_to_nothing_passes_and_no_more() -> None:
    values = np.full(8, 1e-5, np.float32)
    assert check_values("toy", "presence", {}, values, values + np.float32(5e-8), FP32_TOLERANCE).relative_l2 > 1e-3
    with pytest.raises(ValueMismatchError, match="differs from PyTorch"):
        check_values("toy", "presence", {}, values, values + np.float32(2e-6), FP32_TOLERANCE)
