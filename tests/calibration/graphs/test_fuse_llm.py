"""The language model's fused graph against the exported one, in every precision it is given."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from mgcc_calibration.errors import FusionError
from mgcc_calibration.graphs.fuse_llm import fuse_language_model
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.graphs.layers import find_layers
from mgcc_calibration.graphs.merge_linear import merge_gates
from mgcc_calibration.graphs.storage import files_of, serialised
from mgcc_calibration.quantise.block_offsets import write_block_offsets
from mgcc_calibration.quantise.dynamic_int8 import WeightBytes, loudest_first, write_dynamic_int8
from mgcc_calibration.quantise.grid import Grid
from mgcc_calibration.quantise.matmul_nbits import WeightOptions, write_weight_only
from mgcc_calibration.quantise.observe import measure_limits
from mgcc_calibration.quantise.smoothquant import apply_factors
from mgcc_export.graphs.to_onnx import export_stage
from mgcc_export.stages.stage import ExampleMaker, collect_stages
from mgcc_ref.model import load_model
from mgcc_runtime.contract import PAST_LENGTH, past_names, present_names, stage
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.errors import ContractError
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.measure.similarity import relative_l2
from mgcc_runtime.measure.verify import verify
from tests.calibration.small_stage import graph_of, proto_of

#: The same sums in another order, and no weight changed.
FUSED_LIMIT = 1e-5
CASES = [(1, 0), (7, 0), (1, 9), (6, 11)]  # (new positions, past)


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    (chosen,) = collect_stages(model, ("llm",))
    path = tmp_path_factory.mktemp("llm") / "llm.onnx"
    export_stage(chosen.module, chosen.spec, chosen.axes, ExampleMaker(model).trace_inputs(chosen), path)
    return path


@pytest.fixture(scope="module")
def spec(model):
    return stage(model.dimensions, "llm")


@pytest.fixture(scope="module")
def fused(exported, model):
    return fuse_language_model(Graph.load(exported), model.dimensions.context)


def feeds_of(d, positions, past, seed=0):
    rng = np.random.default_rng([seed, positions, past])
    cache = (1, d.kv_heads, past, d.head_dim)
    names = past_names(d.layers)
    return {
        "inputs_embeds": rng.normal(0, 0.5, (1, positions, d.hidden)).astype(np.float32),
        **{name: rng.normal(0, 0.5, cache).astype(np.float32) for name in names},
    }


def worst_error(found, exact, spec, d):
    """Relative L2 of the worst output of any case."""
    with_both = []
    for path in (found, exact):
        session = open_session("onnxruntime", path, spec, EngineOptions(1))
        with_both.append([session.run(feeds_of(d, *case)).arrays for case in CASES])
        session.close()
    return max(relative_l2(a[name], b[name]) for a, b in zip(*with_both, strict=True) for name in b)


def test_it_gives_what_the_exported_graph_gives(fused, exported, spec, model, tmp_path):
    path = fused.save(tmp_path / "fused.onnx")
    assert worst_error(path, exported, spec, model.dimensions) <= FUSED_LIMIT


def test_positions_that_are_off_by_one_would_show(fused, exported, spec, model, tmp_path):
    wrong = fused.copy()
    for name in ("cos_table", "sin_table"):
        wrong.set_weight(name, np.roll(wrong.weight(name), 1, axis=0))
    # rotation is relative, so a shift of all positions changes nothing but the first one's, which is rolled round
    assert worst_error(wrong.save(tmp_path / "wrong.onnx"), exported, spec, model.dimensions) > 100 * FUSED_LIMIT


def test_the_same_words_are_written(fused, exported, spec, model, tmp_path):
    d, table = model.dimensions, model.embed_tokens.numpy()
    texts = []
    for path in (exported, fused.save(tmp_path / "fused.onnx")):
        session = open_session("onnxruntime", path, spec, EngineOptions(1))
        cache, x, tokens = KvCache.empty(d), table[None, 5:17], []
        for _ in range(16):
            outputs = session.run({"inputs_embeds": x, **cache.feeds()}, keep=present_names(d.layers))
            cache = cache.extended(outputs, x.shape[1])
            logits = outputs["logits"][0, 0]
            logits[tokens] = -np.inf  # random weights would say one word for ever
            tokens.append(int(logits.argmax()))
            x = table[None, tokens[-1:]]
        texts.append(tokens)
        session.close()
    assert texts[0] == texts[1]


def test_nothing_of_what_it_replaces_is_left(fused, model):
    d, found = model.dimensions, Counter(node.op_type for node in fused.nodes)
    assert found["GroupQueryAttention"] == d.layers
    assert not {"Softmax", "Expand", "Pow", "Where", "Cos", "Neg"} & set(found)
    assert found["SkipSimplifiedLayerNormalization"] + found["SimplifiedLayerNormalization"] == 2 * d.layers + 1
    inputs = proto_of(fused).graph.input
    shapes = {i.name: [x.dim_value for x in i.type.tensor_type.shape.dim] for i in inputs}
    assert shapes["past_key_values.0.key"] == [1, d.kv_heads, d.context, d.head_dim] and PAST_LENGTH in shapes


def test_logits_are_of_the_last_position_alone(fused, exported):
    """The largest product of all must not run over a whole prompt."""
    for graph in (fused, Graph.load(exported)):
        (head,) = [n for n in graph.nodes if n.op_type == "MatMul" and n.inputs[1].is_initializer()
                   and n.inputs[1].shape[1] == 512]  # fmt: skip
        before = [head.inputs[0]]
        for _ in range(3):
            node = before[-1].producer()
            if node.op_type == "Slice":
                break
            before.append(node.inputs[0])
        else:
            raise AssertionError("no cut to the last position before the logits")


def test_packed_weights_are_fused_too(exported, spec, model, tmp_path):
    source = Graph.load(exported)
    packed = write_weight_only(source, WeightOptions(Grid(8, 32), accuracy_level=0)).graph
    both = fuse_language_model(packed, model.dimensions.context)
    merge_gates(both)
    assert Counter(n.op_type for n in both.nodes)["MatMulNBits"] == 4 * model.dimensions.layers + 2
    paths = both.save(tmp_path / "both.onnx"), packed.save(tmp_path / "packed.onnx")
    assert worst_error(*paths, spec, model.dimensions) <= FUSED_LIMIT


def test_published_four_bit_weights_lose_nothing(fused, spec, model, tmp_path):
    """Q4_1: a scale and a least value for each block; all sixteen codes' ends occur in a block, as published."""
    exact, rng = fused.copy(), np.random.default_rng(0)
    for layer in find_layers(exact):
        if layer.name in {n.name for n in exact.nodes if n.op_type == "MatMul"}:
            inputs, outputs = exact.weight(layer.weight).shape
            codes = rng.integers(0, 16, (inputs // 32, 32, outputs))
            codes[:, 0], codes[:, 1] = 0, 15
            step = rng.uniform(0.01, 0.02, (inputs // 32, 1, outputs)).astype(np.float16)
            least = (-7.5 * step + rng.normal(0, 0.01, step.shape)).astype(np.float16)
            values = codes * step.astype(np.float32) + least.astype(np.float32)
            exact.set_weight(layer.weight, values.reshape(inputs, outputs))
    path = exact.save(tmp_path / "exact.onnx")
    with_offsets = write_block_offsets(exact, accuracy_level=0)
    assert max(layer.error for layer in with_offsets.layers if layer.bits == 4) < 1e-3
    plain = write_weight_only(exact, WeightOptions(Grid(4, 32), accuracy_level=0)).graph
    errors = [
        worst_error(graph.save(tmp_path / f"{name}.onnx"), path, spec, model.dimensions)
        for name, graph in (("offsets", with_offsets.graph), ("plain", plain))
    ]
    assert errors[0] < 0.02 and errors[1] > 4 * errors[0]


def test_dynamic_int8_spares_what_it_is_told_to(fused, exported, spec, model, tmp_path):
    d = model.dimensions

    def samples():
        return (feeds_of(d, *case) for case in CASES if case[0] > 1)

    source = Graph.load(exported)
    names = list(dict.fromkeys(layer.data for layer in find_layers(source)))
    limits = measure_limits(source, names, names, samples)
    loud = loudest_first(limits, {})
    assert len(loud) == 4 * d.layers + 1
    louder = {loud[-1]: np.full(limits[loud[-1]].channels.shape, 1.0, np.float32)}
    louder[loud[-1]][int(limits[loud[-1]].channels.argmax())] = 1e-3
    assert loudest_first(limits, louder)[0] == loud[-1]
    made = write_dynamic_int8(fused, loud[:2])
    found = Counter(node.op_type for node in made.nodes)
    assert found["MatMulNBits"] > 2 and found["DynamicQuantizeMatMul"] > 0 and not found["MatMul"]
    assert worst_error(made.save(tmp_path / "int8.onnx"), exported, spec, d) < 0.05


def test_signed_and_unsigned_weights_give_the_same(fused, spec, model, tmp_path):
    """On every CPU: unsigned ones are what ONNX Runtime would make of the others where the CPU saturates."""
    paths = [write_dynamic_int8(fused, (), stored).save(tmp_path / stored / "llm.onnx") for stored in WeightBytes]
    assert worst_error(paths[1], paths[0], spec, model.dimensions) <= FUSED_LIMIT
    stored = [{w.dtype for w in Graph.load(path).weights.values() if len(w.shape) == 2} for path in paths]
    assert ir.DataType.INT8 in stored[0] and ir.DataType.INT8 not in stored[1]


def test_smoothing_goes_into_the_weights_before_a_gate(exported, spec, model, tmp_path):
    """SwiGLU's product is scaled by the columns of one of its projections; attention's results need a node."""
    d, source = model.dimensions, Graph.load(exported)
    layers = find_layers(source)
    rng = np.random.default_rng(0)
    factors = {
        layer.data: rng.uniform(0.5, 2, source.weights[layer.weight].shape[0]).astype(np.float32) for layer in layers
    }
    smoothed, _ = apply_factors(source, layers, factors)
    added = {node.inputs[0].name for node in smoothed.nodes if node.outputs[0].name.endswith("_smoothed")}
    of_gates = {layer.data for layer in layers if source.weights[layer.weight].shape[0] == 128}
    assert len(of_gates) == d.layers and added and not added & of_gates
    fused = fuse_language_model(smoothed, d.context)
    assert worst_error(fused.save(tmp_path / "smoothed.onnx"), exported, spec, d) <= FUSED_LIMIT


def test_a_graph_of_another_structure_is_refused(bundle, exported):
    other = Graph.load(bundle.file("llm.onnx"))
    with pytest.raises(FusionError, match="leave this graph as it is"):
        fuse_language_model(other, 160)
    with pytest.raises(FusionError, match="has no cache inputs"):
        fuse_language_model(Graph.load(bundle.file("unet.onnx")), 160)
    without = Graph.load(exported)
    for node in without.nodes:
        if node.op_type == "Softmax":
            node.op_type = "LogSoftmax"
    with pytest.raises(FusionError, match="no attention of the known form"):
        fuse_language_model(without, 160)


def test_an_in_place_graph_says_its_capacity(fused, spec, tmp_path):
    """One whose buffers are of no stated length cannot be given memory."""
    vague = fused.copy()
    for value in vague.model.graph.inputs:
        if value.name.startswith("past_key_values."):
            value.shape = ir.Shape([*value.shape[:2], "C", *value.shape[3:]])
    with pytest.raises(ContractError, match="does not say of what capacity"):
        open_session("onnxruntime", vague.save(tmp_path / "vague.onnx"), spec, EngineOptions(1))


def test_an_in_place_graph_is_for_the_cpu_alone(fused, spec, tmp_path, monkeypatch):
    """On a GPU the buffers, in the host's memory, would be copied there and never come back."""
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["CUDAExecutionProvider"])
    with pytest.raises(ContractError, match="for the engine onnxruntime on the CPU, not for CUDAExecutionProvider"):
        open_session("onnxruntime", fused.save(tmp_path / "fused.onnx"), spec, EngineOptions(1))


def test_the_same_graph_gives_the_same_bytes(exported, model, tmp_path):
    made = [
        write_block_offsets(fuse_language_model(Graph.load(exported), model.dimensions.context)).graph.save(
            tmp_path / name / "llm.onnx"
        )
        for name in ("a", "b")
    ]
    assert made[0].read_bytes() == made[1].read_bytes()
    assert onnx.load(made[0]).graph.input[-1].name == PAST_LENGTH


def test_both_uses_are_chosen_and_written(exported, fused, model, spec, tmp_path, bundle):
    """What a build does with its two choices: a second file for another graph, none where both uses took the same."""
    from mgcc_calibration.bundle.replace_stages import StageChange
    from mgcc_runtime.contract import DECODE
    from tests.calibration.lowered import write_replaced
    from tests.runtime.in_place_llm import make_in_place

    one = tmp_path / "made" / "llm.onnx"
    one.parent.mkdir()
    onnx.save(make_in_place(), one)
    same = StageChange(bundle.file("llm.onnx"), "onnxruntime", "fp32")
    other = StageChange(one, "onnxruntime", "int4-weights")
    two = write_replaced(bundle, {"llm": same, DECODE: other}, tmp_path / "two").manifest
    assert two.graphs()[DECODE].precision == "int4-weights" and two.files["llm_decode.onnx"].bytes == one.stat().st_size
    assert two.requires["onnxruntime"] == ">=1.22"  # 8-bit blocks
    assert two.tolerances["llm"].relative_l2 > 1e-3  # these are two models: what either misses is in the tolerance
    single = write_replaced(bundle, {"llm": same, DECODE: same}, tmp_path / "single").manifest
    assert single.stages["llm"].decode is None and "llm_decode.onnx" not in single.files


def test_a_large_graph_keeps_its_weights_in_a_file_under_either_name(tmp_path, bundle, monkeypatch):
    """As one of the two language models, renamed for the bundle; the same bytes each time, the graph usable after."""
    from mgcc_calibration.bundle.replace_stages import StageChange
    from mgcc_calibration.graphs.storage import EXTERNAL_DATA_BYTES
    from mgcc_runtime.contract import DECODE
    from tests.calibration.lowered import write_replaced
    from tests.runtime.in_place_llm import make_in_place

    assert EXTERNAL_DATA_BYTES > 1e6
    monkeypatch.setattr("mgcc_calibration.graphs.storage.EXTERNAL_DATA_BYTES", 1000)
    graph = graph_of(make_in_place())
    before = serialised(graph.model)
    first, second = (graph.save(tmp_path / name / "llm.onnx") for name in ("a", "b"))
    assert serialised(graph.model) == before
    assert [p.name for p in files_of(first)] == ["llm.onnx", "llm.onnx.data"]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(files_of(first), files_of(second), strict=True))
    several = StageChange(Graph.load(bundle.file("llm.onnx")).save(tmp_path / "c" / "llm.onnx"), "onnxruntime", "fp32")
    one = StageChange(first, "onnxruntime", "int4-weights")
    made = write_replaced(bundle, {"llm": several, DECODE: one}, tmp_path / "two")
    names = {"llm.onnx", "llm.onnx.data", "llm_decode.onnx", "llm_decode.onnx.data"}
    assert names <= set(made.manifest.files) and [p.name for p in files_of(made.root / "llm_decode.onnx")][1] in names
    assert (made.root / "llm_decode.onnx.data").read_bytes() == files_of(first)[1].read_bytes()
    assert all(check.passed for check in verify(made.root))  # with both graphs, from the mapped files
