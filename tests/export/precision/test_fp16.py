"""fp16 graphs: strongly typed, right where a naive conversion overflows, and with the contract's types outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from mgcc_export.errors import ExportError
from mgcc_export.precision import fp16
from mgcc_export.precision.activation_scan import activation_ranges, scan_ranges
from mgcc_export.precision.fp16 import precise_nodes, to_half, write_half
from mgcc_ref.networks.texture_painter import TexturePainter
from mgcc_runtime.measure.similarity import relative_l2
from tests.export.precision.small_graphs import (
    emulated,
    masked_softmax,
    noise,
    operators,
    overflowing,
    perceptron,
    run,
    save,
    types,
)

#: fp16 keeps 11 bits: 5e-4 for one rounding; two products of 128 and 256 terms stay within ten times that.
HALF_L2 = 5e-3


def test_weights_and_activations_are_fp16_and_the_ends_fp32(tmp_path: Path) -> None:
    source, half = perceptron(tmp_path / "a.onnx"), tmp_path / "half.onnx"
    found = write_half(source, half)
    onnx.checker.check_model(half, full_check=True)
    kinds = types(half)
    assert kinds["x"] == kinds["y"] == TensorProto.FLOAT
    assert kinds["a.half"] == kinds["b.half"] == kinds["wide"] == TensorProto.FLOAT16
    assert found.kept == {"LayerNormalization": 1}
    assert half.stat().st_size < 0.6 * source.stat().st_size
    assert relative_l2(emulated(half, {"x": noise()}), run(source, {"x": noise()})) < HALF_L2


def test_a_norm_is_right_where_squares_overflow(tmp_path: Path) -> None:
    """Values of 1000 have squares beyond 65504: the norm has to be in fp32."""
    source, half = perceptron(tmp_path / "a.onnx"), tmp_path / "half.onnx"
    write_half(source, half)
    x = noise(scale=1000.0)
    assert relative_l2(emulated(half, {"x": x}), run(source, {"x": x})) < HALF_L2


def test_a_mask_of_the_least_float_neither_overflows_nor_shows(tmp_path: Path) -> None:
    source, half = masked_softmax(tmp_path / "a.onnx"), tmp_path / "half.onnx"
    write_half(source, half)
    x = noise(scale=1.0)
    x[..., -1] = -30000.0  # with a mask of -65504 this sum would be minus infinity
    result = emulated(half, {"x": x})
    assert np.isfinite(result).all()
    assert (result[..., -1] == 0).all()
    assert relative_l2(result, run(source, {"x": x})) < HALF_L2
    np.testing.assert_array_equal(to_half(np.float32([-3.4e38, np.inf, 1.0])), np.float16([-30000, 30000, 1]))


def test_the_scan_finds_what_overflows_and_keeping_it_helps(tmp_path: Path) -> None:
    source = overflowing(tmp_path / "a.onnx")
    x = noise(scale=10.0)
    scan = scan_ranges(source, [{"x": x}])
    assert {e.node for e in scan.excesses} == {"beyond", "back"}
    assert scan.largest == pytest.approx(float(np.abs(x).max()) * 1e5, rel=1e-5)
    write_half(source, tmp_path / "naive.onnx")
    assert not np.isfinite(emulated(tmp_path / "naive.onnx", {"x": x})).all()
    found = write_half(source, tmp_path / "kept.onnx", keep=scan.keep)
    assert found.kept == {"Mul": 1, "Div": 1}
    assert relative_l2(emulated(tmp_path / "kept.onnx", {"x": x}), run(source, {"x": x})) < HALF_L2


def test_emulation_rounds_where_the_cpu_would_not(tmp_path: Path) -> None:
    """The reason for it: ONNX Runtime drops the Casts and never sees the overflow. If that changes, so can we."""
    write_half(overflowing(tmp_path / "a.onnx"), tmp_path / "half.onnx")
    x = noise(scale=10.0)
    assert np.isfinite(run(tmp_path / "half.onnx", {"x": x})).all()
    assert not np.isfinite(emulated(tmp_path / "half.onnx", {"x": x})).all()


def test_emulation_keeps_names_and_types_of_the_boundary(tmp_path: Path) -> None:
    write_half(perceptron(tmp_path / "a.onnx"), tmp_path / "half.onnx", half_boundary=("x", "y"))
    x = noise().astype(np.float16)
    result, plain = emulated(tmp_path / "half.onnx", {"x": x}), run(tmp_path / "half.onnx", {"x": x})
    assert result.dtype == np.float16
    assert relative_l2(result, plain) < HALF_L2


def test_what_masks_is_not_counted_and_what_stands_beside_it_is(tmp_path: Path) -> None:
    """A sum with a mask holds -3.4e38 and the scores: only the scores are activations."""
    x = noise(scale=5.0)
    found, _ = activation_ranges(masked_softmax(tmp_path / "a.onnx"), [{"x": x}])
    assert max(found.values()) <= np.abs(x).max() + 1e-5
    assert sum(value > 1.0 for value in found.values()) >= 2  # the input, and the sum where nothing is masked


def test_the_scan_takes_the_largest_of_all_runs(tmp_path: Path) -> None:
    source = perceptron(tmp_path / "a.onnx")
    small, large = noise(scale=1.0), noise(scale=7.0)
    both, runs = activation_ranges(source, [{"x": small}, {"x": large}, {"x": small}])
    assert runs == 3
    assert both["x"] == pytest.approx(float(np.abs(large).max()))
    alone, _ = activation_ranges(source, [{"x": large}])
    assert both["wide"] == pytest.approx(alone["wide"])


def test_a_boundary_can_be_half(tmp_path: Path) -> None:
    source, half = perceptron(tmp_path / "a.onnx"), tmp_path / "half.onnx"
    write_half(source, half, half_boundary=("x", "y"))
    assert types(half)["x"] == types(half)["y"] == TensorProto.FLOAT16
    result = emulated(half, {"x": noise().astype(np.float16)})
    assert result.dtype == np.float16
    assert relative_l2(result, run(source, {"x": noise()})) < HALF_L2


def test_angles_and_what_they_come_from_stay_fp32(tmp_path: Path) -> None:
    """cos(417 x): in fp16 the angle alone would be off by a quarter."""
    nodes = [
        helper.make_node("Mul", ["x", "octave"], ["angle"], "scale"),
        helper.make_node("Cos", ["angle"], ["y"], "cosine"),
    ]
    source, half = save(tmp_path / "a.onnx", nodes, {"octave": np.float32([417.0])}), tmp_path / "half.onnx"
    write_half(source, half)
    assert relative_l2(emulated(half, {"x": noise()}), run(source, {"x": noise()})) < HALF_L2
    graph = ir.load(source).graph
    assert {n.name for n in precise_nodes(graph)} == {"scale", "cosine"}


@pytest.fixture
def textures(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The canvas of the story's texture painter as a graph, and boxes of its size."""
    torch.manual_seed(0)
    painter = TexturePainter(phrase=8, latent_px=16, channels=8).eval()
    torch.nn.init.normal_(painter.texture.weight, 0.0, 0.5)
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.6, (1, 4, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + rng.uniform(0.2, 0.4, (1, 4, 2)).astype(np.float32)], -1)
    feeds = {
        "boxes": boxes,
        "box_mask": np.ones((1, 4), np.float32),
        "phrases": rng.normal(0, 1, (1, 4, 8)).astype("f4"),
    }

    class Canvas(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.painter = painter

        def forward(self, boxes: torch.Tensor, box_mask: torch.Tensor, phrases: torch.Tensor) -> torch.Tensor:
            return self.painter.canvas(boxes, box_mask, phrases)

    path, given = tmp_path / "canvas.onnx", tuple(torch.from_numpy(v) for v in feeds.values())
    torch.onnx.export(
        Canvas().eval(), given, path, dynamo=True, input_names=list(feeds), output_names=["y"], verbose=False
    )
    return path, feeds


def test_where_textures_lie_stays_fp32(
    textures: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A texel is a fiftieth of a box: with places in fp16 it is missed by a few hundredths."""
    (source, feeds), errors = textures, []
    for resamples in (fp16._resamples, lambda _: False):
        monkeypatch.setattr(fp16, "_resamples", resamples)
        write_half(source, tmp_path / "half.onnx")
        errors.append(relative_l2(emulated(tmp_path / "half.onnx", feeds), run(source, feeds)))
    assert errors[0] < HALF_L2 and errors[1] > 4 * errors[0], errors


def test_a_graph_with_branches_is_refused(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    node = helper.make_node("If", ["yes"], ["y"], "choice", then_branch=branch, else_branch=branch)
    save(tmp_path / "a.onnx", [node], {"yes": np.array(True)})
    with pytest.raises(ExportError, match="holds subgraphs"):
        write_half(tmp_path / "a.onnx", tmp_path / "half.onnx")


def test_one_cast_serves_all_readers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain"], ["normed"], "norm"),
        helper.make_node("MatMul", ["normed", "w"], ["wide"], "product"),
        helper.make_node("Tanh", ["normed"], ["gate"], "act"),
        helper.make_node("Div", ["wide", "gate"], ["y"], "gated"),
    ]
    source = save(tmp_path / "a.onnx", nodes, {"gain": np.ones(128, np.float32), "w": np.eye(128, dtype=np.float32)})
    write_half(source, tmp_path / "half.onnx")
    casts = [n for n in operators(tmp_path / "half.onnx").values() if n.op_type == "Cast"]
    assert [(n.input[0], n.output[0]) for n in casts] == [("normed", "normed.half"), ("y.inner", "y")]
