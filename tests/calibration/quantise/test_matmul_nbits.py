"""Weights in 8 and 4 bits: the format against ONNX Runtime's own quantiser, the corrections, perplexity."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from mgcc_calibration.analysis.perplexity import Wording, score_texts, story_texts
from mgcc_calibration.errors import DataError, MethodError
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.quantise.gptq import gptq
from mgcc_calibration.quantise.grid import Grid, dequantised, round_to_nearest
from mgcc_calibration.quantise.matmul_nbits import Correction, WeightOptions, head_layers, write_weight_only
from mgcc_runtime.measure.similarity import relative_l2
from tests.calibration.small_stage import graph_of, proto_of

K, N, N_OUT = 96, 40, 24
GRIDS = [Grid(4, 32), Grid(4, 128), Grid(8, 32), Grid(8, 128)]


def make_linear(seed: int = 0) -> Graph:
    """x (1, S, 96) -> norm -> MatMul -> ReLU -> Gemm with a bias: the norm makes some inputs loud."""
    rng = np.random.default_rng(seed)
    weights = {
        "gain": np.exp(rng.normal(0, 1.2, K)),
        "first": rng.normal(0, K**-0.5, (K, N)),
        "second": rng.normal(0, N**-0.5, (N_OUT, N)),
        "bias": rng.normal(0, 0.1, N_OUT),
        "rows": np.array([-1, N]),
    }
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["loud"], name="norm"),
        helper.make_node("MatMul", ["loud", "first"], ["hidden"], name="up"),
        helper.make_node("Relu", ["hidden"], ["active"], name="relu"),
        helper.make_node("Reshape", ["active", "rows"], ["flat"], name="reshape"),
        helper.make_node("Gemm", ["flat", "second", "bias"], ["y"], name="down", transB=1),
    ]
    tensors = [
        numpy_helper.from_array(v.astype(np.int64 if k == "rows" else np.float32), k) for k, v in weights.items()
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, "S", K))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("S", N_OUT))
    graph = helper.make_graph(nodes, "linear", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return graph_of(model)


def samples(seed: int = 1):
    def again():
        rng = np.random.default_rng(seed)
        mix = rng.normal(0, 1, (12, K))  # inputs lie near a small subspace, as features do
        for _ in range(8):
            values = rng.normal(0, 1, (1, 64, 12)) @ mix + 0.2 * rng.normal(0, 1, (1, 64, K))
            yield {"x": values.astype(np.float32)}

    return again


def output_error(found: Graph, exact: Graph) -> float:
    feeds = list(samples(seed=1)())
    return float(
        np.mean([relative_l2(found.session().run(["y"], f)[0], exact.session().run(["y"], f)[0]) for f in feeds])
    )


@pytest.fixture(scope="module")
def graph():
    return make_linear()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_packing_is_onnxruntimes_byte_for_byte(graph, grid):
    ours = write_weight_only(graph, WeightOptions(grid)).graph
    settings = DefaultWeightOnlyQuantConfig(block_size=grid.block, is_symmetric=True, bits=grid.bits)
    quantiser = MatMulNBitsQuantizer(proto_of(graph), algo_config=settings)
    quantiser.process()
    theirs = graph_of(quantiser.model.model)
    node = next(n for n in theirs.nodes if n.op_type == "MatMulNBits")
    same = next(n for n in ours.nodes if n.op_type == "MatMulNBits" and n.name == "up")
    np.testing.assert_array_equal(ours.weight(same.inputs[1].name), theirs.weight(node.inputs[1].name))
    np.testing.assert_array_equal(ours.weight(same.inputs[2].name), theirs.weight(node.inputs[2].name).ravel())


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("correction", list(Correction))
def test_graphs_run_and_are_near(graph, grid, correction):
    result = write_weight_only(graph, WeightOptions(grid, correction, accuracy_level=0), samples())
    limit = 0.15 if grid.bits == 4 else 0.01
    assert 1e-5 < output_error(result.graph, graph) < limit
    assert [(x.layer, x.bits, x.block) for x in result.layers] == [(n, grid.bits, grid.block) for n in ("up", "down")]
    assert {n.op_type for n in result.graph.nodes} >= {"MatMulNBits", "Add"}
    assert not {"first", "second"} & set(result.graph.weights)


@pytest.mark.parametrize("correction", [Correction.AWQ, Correction.GPTQ, Correction.AWQ_GPTQ])
def test_corrections_lower_the_error_of_the_output(graph, correction):
    def error(kind):
        return output_error(
            write_weight_only(graph, WeightOptions(Grid(4, 32), kind, accuracy_level=0), samples()).graph, graph
        )

    assert error(correction) < (0.95 if correction is Correction.AWQ else 0.8) * error(Correction.NONE)


def test_gptq_without_correlations_is_rounding(graph):
    """Uncorrelated inputs of one size leave nothing to make up for, but scales of later blocks are the same too."""
    weights = np.random.default_rng(3).normal(0, 1, (64, 8)).astype(np.float32)
    grid = Grid(4, 32)
    codes, scales = gptq(weights, np.eye(64), grid)
    plain_codes, plain_scales = round_to_nearest(weights, grid)
    np.testing.assert_array_equal(codes, plain_codes)
    np.testing.assert_allclose(scales, plain_scales)


def test_the_largest_weight_is_exact():
    weights = np.random.default_rng(4).normal(0, 1, (32, 5)).astype(np.float32)
    grid = Grid(4, 32)
    back = dequantised(*round_to_nearest(weights, grid), grid)
    place = np.abs(weights).argmax(axis=0)
    columns = np.arange(5)
    np.testing.assert_allclose(back[place, columns], weights[place, columns], rtol=1e-6)


def test_overrides_and_kept_layers(graph):
    options = WeightOptions(Grid(4, 32), overrides={"down": Grid(8, 32)}, keep=frozenset({"up"}))
    result = write_weight_only(graph, options)
    assert [(x.layer, x.bits) for x in result.layers] == [("down", 8)]
    assert result.kept == {"up": "kept by choice"} and "first" in result.graph.weights


def test_heads_are_found(graph):
    assert head_layers(graph) == ("down",)


def test_the_same_data_gives_the_same_bytes(graph, tmp_path):
    options = WeightOptions(Grid(4, 32), Correction.AWQ_GPTQ)
    files = [write_weight_only(make_linear(), options, samples()).graph.save(tmp_path / name) for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_wrong_settings_are_refused(graph):
    with pytest.raises(MethodError, match="3 bits in blocks of 32"):
        Grid(3, 32)
    with pytest.raises(MethodError, match="blocks of 24"):
        Grid(4, 24)
    with pytest.raises(MethodError, match="needs calibration data"):
        write_weight_only(graph, WeightOptions(correction=Correction.GPTQ))


def test_perplexity_of_the_language_model_stage(bundle, data, tmp_path):
    """8 bits keep it; random weights in their place do not agree with it any more."""
    path, texts = bundle.file(bundle.manifest.stages["llm"].file), story_texts(1, seed=5)
    exact = score_texts(bundle, path, Wording(texts, 60))
    assert exact.tokens == 60 and exact.perplexity > 1
    graph = Graph.load(path)
    fine = write_weight_only(graph, WeightOptions(Grid(8, 32), accuracy_level=0)).graph.save(tmp_path / "fine.onnx")
    found = score_texts(bundle, fine, Wording(texts, 60))
    assert found.perplexity == pytest.approx(exact.perplexity, rel=0.05) and exact.agreement(found) > 0.9
    spoilt = graph.copy()
    for name, weight in graph.weights.items():
        if len(weight.shape) == 2:
            spoilt.set_weight(name, np.random.default_rng(0).permuted(graph.weight(name), axis=0))
    assert exact.agreement(score_texts(bundle, spoilt.save(tmp_path / "spoilt.onnx"), Wording(texts, 60))) < 0.9
    with pytest.raises(DataError, match="no two tokens"):
        score_texts(bundle, path, Wording(["a"]))
