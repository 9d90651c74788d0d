"""Weights in 8 and 4 bits: stored as such, rounded to nearest, and the graph still says what it said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mgcc_export.precision.fp16 import write_half
from mgcc_export.precision.weight_widths import Bits, quantise_blocks, quantise_channels, write_quantised
from mgcc_runtime.measure.similarity import relative_l2
from tests.export.precision.small_graphs import (
    WIDTH,
    noise,
    operators,
    perceptron,
    run,
    save,
    shared_projections,
    types,
)

#: Normal weights rounded to 255 and to 15 levels of their largest: about 0.7 % and 11 % a weight, less in a sum.
LIMITS = {Bits.EIGHT: 0.02, Bits.FOUR: 0.15}


@pytest.fixture
def half(tmp_path: Path) -> Path:
    write_half(perceptron(tmp_path / "full.onnx"), tmp_path / "half.onnx")
    return tmp_path / "half.onnx"


@pytest.mark.parametrize("bits", Bits)
def test_values_stay_close_and_the_file_shrinks(half: Path, tmp_path: Path, bits: Bits) -> None:
    target = tmp_path / "quantised.onnx"
    found = write_quantised(half, target, bits)
    onnx.checker.check_model(target, full_check=True)
    kind = {Bits.EIGHT: TensorProto.INT8, Bits.FOUR: TensorProto.INT4}[bits]
    assert types(target)["a.half.q"] == types(target)["b.half.q"] == kind
    assert (found.eight, found.four) == ((2, 0) if bits is Bits.EIGHT else (0, 2))
    assert "a.half" not in types(target)
    assert found.bytes_after < found.bytes_before * (0.55 if bits is Bits.EIGHT else 0.3)
    distance = relative_l2(run(target, {"x": noise()}), run(tmp_path / "full.onnx", {"x": noise()}))
    assert distance < LIMITS[bits]
    assert distance > 1e-4  # quantised indeed


def test_channels_have_scales_of_their_own() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (32, 8)).astype(np.float32) * np.geomspace(1e-3, 10, 8)
    q, scale = quantise_channels(weight, axis=1)
    assert (np.abs(q).max(axis=0) == 127).all()
    error = np.abs(q * scale.astype(np.float32) - weight).max(axis=0)
    assert (error <= 0.51 * scale.astype(np.float32) + 1e-3 * np.abs(weight).max(axis=0)).all()


def test_blocks_have_scales_of_their_own_and_clipping_never_hurts() -> None:
    weight = np.random.default_rng(0).standard_t(3, (256, 8)).astype(np.float32)
    weight[128:] *= 100
    q, scale = quantise_blocks(weight, 128)
    assert scale.shape == (2, 8)
    back = q.astype(np.float32).reshape(2, 128, 8) * scale.astype(np.float32)[:, None]
    plain = np.abs(weight.reshape(2, 128, 8)).max(axis=1, keepdims=True) / 7
    unclipped = np.rint(weight.reshape(2, 128, 8) / plain) * plain
    error, reference = ((v - weight.reshape(2, 128, 8)) ** 2 for v in (back, unclipped))
    assert (error.sum(axis=1) <= reference.sum(axis=1) * 1.01).all()


def test_a_channel_of_zeros_stays_zero() -> None:
    q, scale = quantise_channels(np.zeros((16, 4), np.float32), axis=1)
    assert not q.any()
    assert (scale == 1).all()


@pytest.mark.parametrize(("inputs", "four"), [(128, 1), (64, 1), (96, 0)])
def test_four_bits_need_blocks_that_fit(tmp_path: Path, inputs: int, four: int) -> None:
    """96 inputs are no multiple of 64 or 128: 8 bits then."""
    weight = np.random.default_rng(0).normal(0, 0.1, (inputs, 128)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    x = helper.make_tensor_value_info("x", 1, [1, 3, inputs])
    y = helper.make_tensor_value_info("y", 1, [1, 3, 128])
    graph = helper.make_graph(nodes, "g", [x], [y], [onnx.numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "a.onnx")
    write_half(tmp_path / "a.onnx", tmp_path / "half.onnx")
    found = write_quantised(tmp_path / "half.onnx", tmp_path / "q.onnx", Bits.FOUR)
    assert (found.four, found.eight) == (four, 1 - four)


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_gets_four_bits_too(tmp_path: Path, transposed: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.1, (WIDTH, 2 * WIDTH)).astype(np.float32)
    back = rng.normal(0, 0.1, (2 * WIDTH, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "bias"], ["wide"], "up", transB=transposed),
        helper.make_node("Gemm", ["wide", "v"], ["y"], "down"),
    ]
    stored = np.ascontiguousarray(weight.T) if transposed else weight
    weights = {"w": stored, "bias": rng.normal(0, 1, 2 * WIDTH).astype(np.float32), "v": back}
    source = save(tmp_path / "a.onnx", nodes, weights, shape=(3, WIDTH))
    write_half(source, tmp_path / "half.onnx")
    found = write_quantised(tmp_path / "half.onnx", tmp_path / "q.onnx", Bits.FOUR)
    assert (found.four, found.eight, found.left) == (2, 0, 0)
    assert {n.op_type for n in operators(tmp_path / "q.onnx").values()} == {"Cast", "DequantizeLinear", "MatMul", "Add"}
    x = noise()[0, :3]
    assert relative_l2(run(tmp_path / "q.onnx", {"x": x}), run(source, {"x": x})) < LIMITS[Bits.FOUR]


def test_small_weights_and_edges_are_left_alone(tmp_path: Path) -> None:
    weights = {"w": np.random.default_rng(0).normal(0, 1, (WIDTH, WIDTH)).astype(np.float32)}
    narrow = np.random.default_rng(0).normal(0, 1, (WIDTH, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "narrow"], ["few"], "edge"),
        helper.make_node("MatMul", ["few", "wide"], ["many"], "edge2"),
        helper.make_node("MatMul", ["many", "w"], ["y"], "inner"),
    ]
    save(tmp_path / "a.onnx", nodes, weights | {"narrow": narrow, "wide": np.ascontiguousarray(narrow.T)})
    write_half(tmp_path / "a.onnx", tmp_path / "half.onnx")
    found = write_quantised(tmp_path / "half.onnx", tmp_path / "q.onnx", Bits.EIGHT)
    assert (found.eight, found.left) == (1, 2)


@pytest.mark.parametrize("bits", Bits)
def test_a_weight_that_several_nodes_read_stays_in_fp16(tmp_path: Path, bits: Bits) -> None:
    write_half(shared_projections(tmp_path / "a.onnx"), tmp_path / "half.onnx")
    found = write_quantised(tmp_path / "half.onnx", tmp_path / "q.onnx", bits)
    assert (found.eight + found.four, found.left) == (1, 3)
    kinds = types(tmp_path / "q.onnx")
    assert {kinds[f"{n}.half"] for n in ("query", "key", "value")} == {TensorProto.FLOAT16} and "own.half.q" in kinds


def test_the_opset_is_the_first_that_has_what_the_width_needs(half: Path, tmp_path: Path) -> None:
    for bits, opset in ((Bits.EIGHT, 19), (Bits.FOUR, 21)):
        write_quantised(half, tmp_path / "q.onnx", bits)
        assert [o.version for o in onnx.load(tmp_path / "q.onnx").opset_import if o.domain == ""] == [opset]
