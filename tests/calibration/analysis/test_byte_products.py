"""8-bit products are exact in the forms that we make, on every CPU; and what is lost without our care shows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mgcc_calibration.analysis.byte_products import (
    PAIRS,
    S7,
    S8,
    U8,
    Form,
    error_db,
    make_layer,
    on_onnxruntime,
    on_openvino,
)
from mgcc_calibration.analysis.product_speed import EXACT_DB
from mgcc_calibration.candidates.candidate import Engine
from mgcc_calibration.candidates.stage_graphs import _STATIC
from mgcc_calibration.cli import main
from mgcc_calibration.quantise.plan import Placement, PlanOptions, Smoothing, WeightCodes, make_plan
from mgcc_calibration.quantise.qdq import write_qdq
from mgcc_runtime.contract import DType, StageSpec, TensorSpec
from mgcc_runtime.device.cpu_features import cpu_features, sums_bytes_in_16_bits
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.errors import ContractError
from mgcc_runtime.measure.similarity import relative_l2
from tests.calibration.small_stage import graph_of

ROOT = Path(__file__).parents[3]
#: A layer that overflows: 15 dB where all codes are as likely.
LOST_DB = 30.0

needs_saturation = pytest.mark.skipif(
    not sums_bytes_in_16_bits(), reason="this CPU sums 8-bit products in 32 bits: run it on an x86 CPU without VNNI"
)


def _decibels(layer, run):
    return error_db(layer, run(layer.feed))


@pytest.mark.parametrize(("form", "pair"), [(form, pair) for form, pairs in PAIRS.items() for pair in pairs])
def test_every_form_is_exact_in_our_sessions_of_onnxruntime(form, pair):
    layer = make_layer(form, *pair, positions=8)
    assert _decibels(layer, on_onnxruntime(layer.model, exact=True)) >= EXACT_DB


@pytest.mark.parametrize("form", [Form.QDQ_MATMUL, Form.QDQ_CONV_INPUTS])
@pytest.mark.parametrize("activations", [S8, U8], ids=str)
def test_openvino_is_exact_with_the_codes_that_it_is_given(form, activations):
    assert {_STATIC[engine][1] for engine in (Engine.OPENVINO, Engine.OPENVINO_BF16)} == {S7.most}
    layer = make_layer(form, activations, S7, positions=8)
    assert _decibels(layer, on_openvino(layer.model)) >= EXACT_DB


@needs_saturation
@pytest.mark.parametrize("form", [Form.MATMUL_INTEGER, Form.DYNAMIC, Form.QDQ_MATMUL, Form.QDQ_CONV])
def test_onnxruntime_out_of_the_box_overflows(form):
    layer = make_layer(form, *PAIRS[form][0], positions=8)
    assert _decibels(layer, on_onnxruntime(layer.model, exact=False)) < LOST_DB


@needs_saturation
@pytest.mark.parametrize("form", [Form.QDQ_MATMUL, Form.QDQ_CONV_INPUTS])
def test_openvino_overflows_with_codes_of_the_full_range(form):
    layer = make_layer(form, U8 if form is Form.QDQ_MATMUL else S8, S8, positions=8)
    assert _decibels(layer, on_openvino(layer.model)) < LOST_DB


def test_no_session_of_ours_is_opened_with_other_settings():
    """Of exporter, calibration and runtime; a session with settings of its own would overflow without a word."""
    opened = re.compile(r"ort\.InferenceSession\(([^()]|\([^()]*\))*\)")
    found = {}
    for folder in ("export", "calibration", "runtime"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            calls = [match[0] for match in opened.finditer(text)]
            found |= {f"{path.name}: {call}": "settings" in call for call in calls}
            # where they are made, and where others' settings are measured beside them
            if path.name not in ("cpu.py", "byte_products.py"):
                assert "SessionOptions()" not in text, f"{path} makes settings of its own; take `cpu_settings`"
    assert len(found) > 5 and all(found.values()), [call for call, sound in found.items() if not sound]


def test_the_command_writes_what_it_measured_with_the_cpus_features(tmp_path, capsys):
    out = tmp_path / "found.json"
    assert main(["products", "--rounds", "1", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert len(capsys.readouterr().out.splitlines()) == len(written["products"])
    assert written["machine"]["cpu_features"] == list(cpu_features())
    ours = [p for p in written["products"] if p["engine"] == "onnxruntime"]
    assert len(ours) == sum(map(len, PAIRS.values())) and all(p["exact_db"] >= EXACT_DB for p in ours)


def _shared_weight(codes):
    """Two layers, one behind the other, with the same matrix in int8."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1 / 6, (32, 32)).astype(np.float32)
    ends = {"first": ("x", "y1"), "second": ("y1", "y")}
    nodes = [helper.make_node("MatMul", [old, "w"], [new], name) for name, (old, new) in ends.items()]
    given, found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [8, 32]) for name in ("x", "y"))
    made = helper.make_graph(nodes, "shared", [given], [found], [numpy_helper.from_array(weight, "w")])
    graph = graph_of(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    samples = [{"x": rng.normal(0, 1, (8, 32)).astype(np.float32)} for _ in range(4)]
    plan = make_plan(graph, lambda: iter(samples), PlanOptions(smoothing=Smoothing.OFF))
    return replace(plan, codes=codes), samples[0]


@pytest.mark.parametrize("placement", list(Placement))
def test_a_weight_that_two_layers_share_opens_and_is_exact(placement):
    """ONNX Runtime cannot make unsigned codes of it twice, so each layer has its own."""
    plan, feeds = _shared_weight(WeightCodes.FULL)
    quantised = write_qdq(plan, placement)
    assert np.abs(quantised.weight("w_int8")).max() == WeightCodes.FULL
    (exact,) = plan.graph.session().run(["y"], feeds)
    (found,) = quantised.session().run(["y"], feeds)
    assert relative_l2(found, exact) < 0.05


@needs_saturation
def test_a_bundle_with_shared_weights_of_the_full_range_is_refused_with_the_way_out(tmp_path):
    """As a CPU with VNNI made them before: it would overflow here, or not open with the engine's own words alone."""
    plan, _ = _shared_weight(WeightCodes.FULL)
    old = write_qdq(plan)
    old.node("second").replace_input_with(1, old.tensors["w_dequantised"])
    old.remove_unread()
    path = old.save(tmp_path / "old.onnx")
    tensors = [(TensorSpec(name, DType.FLOAT32, (8, 32), ""),) for name in ("x", "y")]
    with pytest.raises(ContractError, match=r"share 8-bit weights of the full range.*rebuild the bundle"):
        open_session("onnxruntime", path, StageSpec("unet", *tensors, ""), EngineOptions(1))
