"""Export of a small torch module: names, axes, the lengths that tracing would fix, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from mgcc_export.errors import ExportError
from mgcc_export.graphs.to_onnx import OPSET, export_stage, trace_lengths
from mgcc_runtime.contract import Axis, DType, StageSpec, TensorSpec
from tests.tolerances import REORDERED_FP32


def _axes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_names_and_axes_are_the_contracts(toy_graph: Path) -> None:
    graph = onnx.load(toy_graph).graph
    assert {v.name: _axes(v) for v in graph.input} == {"x": [1, "S", 8], "past": [1, "P", 8], "mask": [1, "S"]}
    assert {v.name: _axes(v) for v in graph.output} == {"mixed": [1, "S", 8], "present": [1, "T", 8]}


def test_opset_is_the_declared_one(toy_graph: Path) -> None:
    assert {o.version for o in onnx.load(toy_graph).opset_import if o.domain == ""} == {OPSET}


@pytest.mark.parametrize(("new", "past"), [(1, 0), (1, 1), (2, 0), (1, 15), (16, 0)])
def test_lengths_that_tracing_takes_for_constants_run(toy, toy_graph: Path, new: int, past: int) -> None:
    inputs = toy.inputs({"S": new, "P": past})
    session = ort.InferenceSession(toy_graph)
    actual = session.run(None, {t.name: v.numpy() for t, v in zip(toy.spec.inputs, inputs, strict=True)})
    with torch.no_grad():
        expected = toy.module(*inputs)
    for theirs, ours in zip(expected, actual, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=REORDERED_FP32)


def test_trace_lengths_differ_and_are_at_least_two(toy) -> None:
    lengths = trace_lengths(toy.spec, toy.axes)
    assert len({*lengths.values()}) == len(lengths)
    assert min(lengths.values()) >= 2


def test_axis_of_a_single_length_is_refused(toy) -> None:
    axes = toy.axes | {"P": Axis("P", 0, 1, 1)}
    with pytest.raises(ExportError, match="axis P of stage toy is at most 1 long, expected 2 or more"):
        trace_lengths(toy.spec, axes)


def test_large_weights_go_to_a_file_beside_the_graph(toy, tmp_path: Path) -> None:
    path = toy.export(tmp_path / "toy.onnx", external_data_bytes=100)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy.onnx", "toy.onnx.data"]
    assert "toy.onnx.data" in {e.value for i in onnx.load(path, load_external_data=False).graph.initializer
                               for e in i.external_data}  # fmt: skip
    feeds = {t.name: v.numpy() for t, v in zip(toy.spec.inputs, toy.inputs({"S": 3, "P": 2}), strict=True)}
    assert ort.InferenceSession(path).run(None, feeds)[0].shape == (1, 3, 8)


def test_no_path_of_this_machine_is_in_the_file(toy_graph: Path) -> None:
    assert str(Path(__file__).parent).encode() not in toy_graph.read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in toy_graph.read_bytes()


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if bool(x.sum() > 0) else x


def test_what_torch_cannot_export_is_said_in_one_line(tmp_path: Path) -> None:
    tensor = TensorSpec("x", DType.FLOAT32, (1, 4), "")
    spec = StageSpec("branching", (tensor,), (TensorSpec("y", DType.FLOAT32, (1, 4), ""),), "")
    with pytest.raises(ExportError, match="stage branching cannot be exported") as caught:
        export_stage(DataDependent(), spec, {}, [torch.ones(1, 4)], tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
