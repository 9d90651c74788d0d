"""Weights that keep more bits because of what their rounding costs, and decisions that stay in fp32."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mgcc_calibration.graphs.storage import load_graph
from mgcc_export.errors import ValueMismatchError
from mgcc_export.graphs.reference import ReferenceCase, compare_graph
from mgcc_export.precision import width_search
from mgcc_export.precision.emulate_fp16 import write_emulated
from mgcc_export.precision.fp16 import write_half
from mgcc_export.precision.fp32_tails import SHARES, decision_tails
from mgcc_export.precision.ladder import Evidence, lower_stage
from mgcc_export.precision.weight_widths import Bits, find_candidates, write_quantised
from mgcc_export.precision.width_search import Search, search_wider
from mgcc_export.targets import TOLERANCES
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.manifest import Tolerance
from mgcc_runtime.contract import DType, StageSpec, TensorSpec
from mgcc_runtime.measure.similarity import relative_l2
from tests.export.precision.small_graphs import WIDTH, operators, run, save, types

X, Y = (TensorSpec(name, DType.FLOAT32, (1, "S", WIDTH), "") for name in "xy")
SPEC = StageSpec("small", (X,), (Y,), "")
OBJECTS = 4


def cases_of(graph: Path, *lengths: int) -> list[ReferenceCase]:
    rng = np.random.default_rng(3)
    feeds = [{"x": rng.normal(0, 1, (1, n, WIDTH)).astype(np.float32)} for n in lengths]
    return [ReferenceCase({"S": n}, f, {"y": run(graph, f)}) for n, f in zip(lengths, feeds, strict=True)]


def chain(path: Path, outliers: tuple[str, ...]) -> Path:
    """x through the matrices a, b, c and d. Those named have one weight a thousand times the rest in each column, on an
    input that the matrix before never gives: rounded to its scale, all that counts is lost."""
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32) for n in "abcd"}
    for name in outliers:
        weights[chr(ord(name) - 1)][:, 0] = 0
        weights[name][0] = 100
    values = ["x", "p", "q", "r", "y"]
    nodes = [helper.make_node("MatMul", [values[i], n], [values[i + 1]], f"by_{n}") for i, n in enumerate("abcd")]
    return save(path, nodes, weights)


def test_the_weight_that_costs_most_is_found_and_no_other(tmp_path: Path) -> None:
    source, half = chain(tmp_path / "a.onnx", ("c",)), tmp_path / "half.onnx"
    write_half(source, half)
    cases, tolerance = cases_of(source, 1, 7, 40), TOLERANCES[Precision.INT8]
    found = search_wider(half, Bits.EIGHT, SPEC, cases, tolerance)
    assert found == Search(("c.half",), 4, 0.25)
    assert search_wider(half, Bits.EIGHT, SPEC, cases, tolerance) == found
    naive, mended = tmp_path / "naive.onnx", tmp_path / "mended.onnx"
    write_quantised(half, naive, Bits.EIGHT)
    write_quantised(half, mended, Bits.EIGHT, found.wider)
    for path in (naive, mended):
        write_emulated(path, path.with_suffix(".emulated"))
    compare_graph(mended.with_suffix(".emulated"), mended, SPEC, cases, tolerance)
    with pytest.raises(ValueMismatchError, match="y of stage small"):
        compare_graph(naive.with_suffix(".emulated"), naive, SPEC, cases, tolerance)


def test_of_four_bits_some_get_eight(tmp_path: Path) -> None:
    """Four layers of four bits each miss a tolerance that three of them keep to."""
    source, half = chain(tmp_path / "a.onnx", ()), tmp_path / "half.onnx"
    write_half(source, half)
    cases = cases_of(source, 12)
    naive = tmp_path / "naive.onnx"
    write_quantised(half, naive, Bits.FOUR)
    off = relative_l2(run(naive, cases[0].feeds), cases[0].outputs["y"])
    found = search_wider(half, Bits.FOUR, SPEC, cases, Tolerance(0.5, 0.98 * off))
    assert len(found.wider) == 1


def test_nothing_is_kept_where_nothing_misses(tmp_path: Path) -> None:
    source, half = chain(tmp_path / "a.onnx", ()), tmp_path / "half.onnx"
    write_half(source, half)
    found = search_wider(half, Bits.EIGHT, SPEC, cases_of(source, 5), TOLERANCES[Precision.INT8])
    assert found.wider == ()


def test_a_stage_that_would_keep_most_is_given_up(tmp_path: Path) -> None:
    source, half = chain(tmp_path / "a.onnx", ("b", "c", "d")), tmp_path / "half.onnx"
    write_half(source, half)
    cases, tolerance = cases_of(source, 5), TOLERANCES[Precision.INT8]
    assert search_wider(half, Bits.EIGHT, SPEC, cases, tolerance).wider == ()
    found = lower_stage(source, tmp_path / "low.onnx", SPEC, Precision.INT8, Evidence(cases))
    assert found.precision is Precision.FP16
    assert found.reasons[0].startswith("int8: y of stage small differs from PyTorch")


def test_too_many_weights_are_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, half = chain(tmp_path / "a.onnx", ("c",)), tmp_path / "half.onnx"
    write_half(source, half)
    monkeypatch.setattr(width_search, "SEARCHED_BYTES", 1000)
    assert search_wider(half, Bits.EIGHT, SPEC, cases_of(source, 5), TOLERANCES[Precision.INT8]).wider == ()


def test_a_lowered_stage_says_what_kept_more_bits(tmp_path: Path) -> None:
    source, target = chain(tmp_path / "a.onnx", ("c",)), tmp_path / "low" / "small.onnx"
    target.parent.mkdir()
    found = lower_stage(source, target, SPEC, Precision.INT8, Evidence(cases_of(source, 1, 9)))
    assert (found.precision, found.reasons, found.wider) == (Precision.INT8, (), ("c.half",))
    assert found.remarks[0].startswith("1 of 4 weights (25.0% of their bytes) in fp16")
    kinds = types(target)
    assert kinds["c.half"] == TensorProto.FLOAT16
    assert {kinds[f"{n}.half.q"] for n in "abd"} == {TensorProto.INT8}
    assert [p.name for p in target.parent.iterdir()] == ["small.onnx"]


def test_of_four_bits_the_next_width_is_eight(tmp_path: Path) -> None:
    write_half(chain(tmp_path / "a.onnx", ()), tmp_path / "half.onnx")
    found = write_quantised(tmp_path / "half.onnx", tmp_path / "q.onnx", Bits.FOUR, ("b.half",))
    assert (found.four, found.eight, found.left) == (3, 1, 0)
    assert types(tmp_path / "q.onnx")["b.half.q"] == TensorProto.INT8


def chooser(path: Path, offset: float) -> Path:
    """At each position the vector of the best of four objects, by scores (x + offset).w with w that sum to 0: the
    offset does not count, but in fp16 it takes digits from x."""
    rng = np.random.default_rng(0)
    score = rng.normal(0, 1, (WIDTH, OBJECTS)).astype(np.float32)
    score -= score.mean(axis=0)
    nodes = [
        helper.make_node("Add", ["x", "offset"], ["p"], "first"),
        helper.make_node("MatMul", ["p", "score"], ["scores"], "scoring"),
        helper.make_node("TopK", ["scores", "one"], ["best", "place"], "choose", axis=2),
        helper.make_node("Gather", ["vectors", "place"], ["chosen"], "take"),
        helper.make_node("Reshape", ["chosen", "form"], ["vector"], "flat"),
        helper.make_node("MatMul", ["x", "beside"], ["other"], "apart"),
        helper.make_node("Add", ["vector", "other"], ["y"], "sum"),
    ]
    weights = {
        "offset": np.full(WIDTH, offset, np.float32), "score": score,
        "one": np.array([1]), "form": np.array([1, -1, WIDTH]),
        "vectors": rng.normal(0, 10, (OBJECTS, WIDTH)).astype(np.float32),
        "beside": rng.normal(0, 0.1, (WIDTH, WIDTH)).astype(np.float32),
    }  # fmt: skip
    return save(path, nodes, weights)


def test_a_decision_that_rounding_turns_over_is_made_in_fp32(tmp_path: Path) -> None:
    """No layer is off by more than 1e-3; at some positions the chosen vector is another one all the same."""
    source, target = chooser(tmp_path / "a.onnx", 60.0), tmp_path / "low.onnx"
    cases = cases_of(source, 500)
    write_half(source, tmp_path / "naive.onnx")
    write_emulated(tmp_path / "naive.onnx", tmp_path / "naive.emulated")
    with pytest.raises(ValueMismatchError, match="y of stage small"):
        compare_graph(tmp_path / "naive.emulated", tmp_path / "naive.onnx", SPEC, cases, TOLERANCES[Precision.FP16])
    found = lower_stage(source, target, SPEC, Precision.FP16, Evidence(cases))
    assert (found.precision, found.reasons) == (Precision.FP16, ())
    assert "nodes that lead to a decision in fp32" in found.remarks[0]
    kinds, nodes = types(target), operators(target)
    assert kinds["scores"] == TensorProto.FLOAT
    assert kinds[nodes["apart"].output[0]] == TensorProto.FLOAT16  # what decides nothing


def test_a_clear_decision_needs_nothing(tmp_path: Path) -> None:
    source = chooser(tmp_path / "a.onnx", 0.0)
    found = lower_stage(source, tmp_path / "low.onnx", SPEC, Precision.FP16, Evidence(cases_of(source, 3)))
    assert (found.precision, found.remarks) == (Precision.FP16, ())


def test_the_tails_grow_to_all_that_leads_to_a_decision(tmp_path: Path) -> None:
    tails = decision_tails(chooser(tmp_path / "a.onnx", 0.0))
    assert len(tails) == len(SHARES)
    assert all(set(a) <= set(b) for a, b in itertools.pairwise(tails))
    assert tails[0] == ("scoring",) and tails[-1] == ("first", "scoring")
    assert decision_tails(chain(tmp_path / "b.onnx", ())) == []


def test_weights_read_back_are_what_the_graph_multiplies_with(tmp_path: Path) -> None:
    """The search feeds `Form.rounded`; ONNX Runtime's own DequantizeLinear must give the same bits."""
    source, half = chain(tmp_path / "a.onnx", ()), tmp_path / "half.onnx"
    write_half(source, half)
    for bits in Bits:
        write_quantised(half, tmp_path / "q.onnx", bits)
        model = onnx.load(tmp_path / "q.onnx")
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("a.half.dq", TensorProto.FLOAT16, [WIDTH, WIDTH]))
        onnx.save(model, tmp_path / "read.onnx")
        candidate = next(c for c in find_candidates(load_graph(half), bits) if c.name == "a.half")
        theirs = run(tmp_path / "read.onnx", {"x": np.zeros((1, 1, WIDTH), np.float32)})
        np.testing.assert_array_equal(candidate.form(bits).rounded(candidate.values), theirs)
