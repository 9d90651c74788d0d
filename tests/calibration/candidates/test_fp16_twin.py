"""A plan of the fp32 graph on its fp16 twin, as the targets with TensorRT get it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from torch import nn

from mgcc_calibration.analysis.sensitivity import spread
from mgcc_calibration.candidates.fp16_twin import (
    COMPARED,
    HALF_OPSET,
    MARGINS,
    raise_opset,
    static_quantisers,
    transfer,
)
from mgcc_calibration.data.capture import CaptureOptions, capture
from mgcc_calibration.errors import DataError
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.quantise.plan import PlanOptions, Smoothing, make_plan
from mgcc_calibration.quantise.qdq import write_qdq
from mgcc_export.errors import ValueMismatchError
from mgcc_export.graphs.reference import ReferenceCase
from mgcc_export.precision.fp16 import write_half
from mgcc_export.precision.ladder import Evidence, lower_stage
from mgcc_export.stages.builder import StageBuilder
from mgcc_export.stages.stage import Stage
from mgcc_export.targets import TOLERANCES, Target, calibrated_tolerance, choose_recipe
from mgcc_ref.config import get_profile
from mgcc_ref.precision import Precision
from mgcc_runtime.contract import stage
from mgcc_runtime.measure.similarity import relative_l2
from tests.calibration.small_stage import make_graph, make_model, proto_of, run, samples


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """The small stage in fp16, its norms in fp32."""
    folder = tmp_path_factory.mktemp("half")
    model = onnx.shape_inference.infer_shapes(make_model())
    onnx.save(model, folder / "fp32.onnx")
    write_half(folder / "fp32.onnx", folder / "half.onnx")
    return raise_opset(Graph.load(folder / "half.onnx"), HALF_OPSET)


@pytest.mark.parametrize("smoothing", list(Smoothing))
def test_all_layers_are_quantised_over_fp16_and_near(twin, smoothing):
    plan = make_plan(make_graph(), samples(), PlanOptions(smoothing=smoothing))
    found = transfer(plan, twin)
    assert [x.name for x in found.layers] == [x.name for x in plan.layers] and found.kept == plan.kept
    assert len(found.residuals) == len(plan.residuals) == 1
    quantised = write_qdq(found)
    onnx.checker.check_model(proto_of(quantised), full_check=True)
    scales = {quantised.weight(n.inputs[1].name).dtype for n in quantised.nodes if n.op_type == "QuantizeLinear"}
    assert scales == {np.dtype(np.float16)}
    exact = make_graph()
    plain = write_qdq(plan)
    for feeds in samples(3, seed=9)():
        error, alone = (relative_l2(run(g, feeds), run(exact, feeds)) for g in (quantised, plain))
        assert error < 1.5 * alone + 5e-3  # fp16 itself is at 1e-3


def test_a_layer_that_the_twin_lacks_is_kept(twin):
    plan = make_plan(make_graph(), samples())
    other = twin.copy()
    for node in other.nodes:
        if node.name == "conv1":
            node.name = "renamed"
    found = transfer(plan, other)
    assert "conv1" not in {x.name for x in found.layers}
    assert found.kept["conv1"] == "not the same layer in the converted graph"
    onnx.checker.check_model(proto_of(write_qdq(found)), full_check=True)


def test_the_exporters_seam_is_a_function_of_two_paths(bundle, data, tmp_path):
    name = "refiner"
    source, spec = bundle.file(f"{name}.onnx"), stage(bundle.manifest.dimensions, name)
    inferred = tmp_path / "fp32.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(source)), inferred)
    write_half(inferred, tmp_path / "half.onnx")
    quantise, *_ = static_quantisers(source, spec, data, 0.05)
    assert quantise(tmp_path / "half.onnx", tmp_path / "a.onnx") == ""
    quantise(tmp_path / "half.onnx", tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    feeds = next(data.samples(name))
    names = [t.name for t in spec.outputs]
    found = Graph.load(tmp_path / "a.onnx").session().run(names, feeds)
    exact = Graph.load(source).session().run(names, feeds)
    assert 1e-5 < relative_l2(found[0].astype(np.float32), exact[0]) < 0.1


def test_unusable_data_is_refused_at_once(bundle, source, tmp_path):
    little = capture(bundle, source, CaptureOptions(stages=("unet",), words=0), tmp_path / "data")
    spec = stage(bundle.manifest.dimensions, "refiner")
    with pytest.raises(DataError, match="no calibration data of stage refiner"):
        static_quantisers(bundle.file("refiner.onnx"), spec, little, 0.05)


def test_the_exporter_lowers_a_stage_to_w8a8(bundle, data, tmp_path):
    """Through the exporter's own ladder: W8A8 where it holds, then 8-bit weights alone, then fp16."""
    name = "refiner"
    spec = stage(bundle.manifest.dimensions, name)
    source = tmp_path / "fp32" / f"{name}.onnx"
    source.parent.mkdir()
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(bundle.file(f"{name}.onnx"))), source)
    session, names = Graph.load(source).session(), [t.name for t in spec.outputs]
    cases = []
    for feeds in data.samples(name):
        outputs = dict(zip(names, session.run(names, feeds), strict=True))
        cases.append(ReferenceCase({"S": feeds["context_features"].shape[1]}, feeds, outputs))
    target = tmp_path / "low" / f"{name}.onnx"
    target.parent.mkdir()
    limit = calibrated_tolerance(name).relative_l2
    quantisers = static_quantisers(source, spec, data, limit)
    lowered = lower_stage(source, target, spec, Precision.INT8, Evidence(cases), quantisers)
    has_pairs = any(n.op_type == "QuantizeLinear" for n in Graph.load(target).nodes)
    alone = any("weights alone" in remark for remark in lowered.remarks)
    assert (has_pairs or alone) == (lowered.precision is Precision.INT8) and not (has_pairs and alone)
    assert bool(lowered.reasons) == (lowered.precision is not Precision.INT8)
    allowed = calibrated_tolerance(name) if has_pairs else TOLERANCES[lowered.precision]
    assert lowered.tolerance == allowed
    assert max(p.relative_l2 for p in lowered.parity) <= allowed.relative_l2


def test_layers_are_spared_until_the_budget_is_kept(bundle, data, tmp_path):
    """Each further function keeps more in fp16 and comes nearer; with a budget that nothing keeps, nothing is left."""
    name = "unet"
    source, spec = bundle.file(f"{name}.onnx"), stage(bundle.manifest.dimensions, name)
    inferred, half = tmp_path / "fp32.onnx", tmp_path / "half.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(source)), inferred)
    write_half(inferred, half)
    samples = spread(lambda: data.samples(name), COMPARED)
    exact = [Graph.load(source).session().run(["prediction"], feeds)[0] for feeds in samples]

    def error_of(path):
        session = Graph.load(path).session()
        found = [session.run(["prediction"], feeds)[0].astype(np.float32) for feeds in samples]
        return relative_l2(np.concatenate(found), np.concatenate(exact))

    def pairs(path):
        return sum(n.op_type == "QuantizeLinear" for n in Graph.load(path).nodes)

    everything, *_ = static_quantisers(source, spec, data, 1.0)
    everything(half, tmp_path / "all.onnx")
    limit = 0.7 * error_of(tmp_path / "all.onnx")
    _, first, second = static_quantisers(source, spec, data, limit)
    counts = [pairs(tmp_path / "all.onnx")]
    for i, (quantise, margin) in enumerate(zip((first, second), MARGINS, strict=True)):
        remark = quantise(half, tmp_path / f"{i}.onnx")
        assert remark is not None and remark.startswith("8 bits in ")
        assert error_of(tmp_path / f"{i}.onnx") < margin * limit + 2e-3  # fp16 itself
        counts.append(pairs(tmp_path / f"{i}.onnx"))
    assert counts[0] > counts[1] >= counts[2] > 0
    assert static_quantisers(source, spec, data, 1e-9)[1](half, tmp_path / "none.onnx") is None


def test_eight_bit_activations_are_judged_on_what_the_stage_is_given(bundle, data, tmp_path):
    """Calibrated ranges do not hold for noise; what a device compares itself on is then a captured input, too."""
    name = "unet"
    spec = stage(bundle.manifest.dimensions, name)
    source = tmp_path / "fp32" / f"{name}.onnx"
    source.parent.mkdir()
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(bundle.file(f"{name}.onnx"))), source)
    session = Graph.load(source).session()

    def case(feeds, factor=1.0):
        return ReferenceCase({}, feeds, {"prediction": factor * session.run(["prediction"], feeds)[0]})

    real = [case(feeds) for feeds in data.samples(name)][:3]
    noise = [case({**real[0].feeds, "latents": 3 * real[0].feeds["latents"]})]
    quantisers = static_quantisers(source, spec, data, calibrated_tolerance(name).relative_l2)

    def lowered(noise, real):
        return lower_stage(
            source, tmp_path / f"{name}.onnx", spec, Precision.INT8, Evidence(noise, real=real), quantisers
        )

    found = lowered(noise, real)
    assert found.golden is real[0] and found.tolerance == calibrated_tolerance(name)
    assert len(found.parity) == len(real)
    with pytest.raises(ValueMismatchError):  # noise may be off, but not upside down: no width gives that
        lowered([case(real[0].feeds, -1.0)], real)


def test_a_jetson_builder_asks_for_w8a8_where_there_is_data(bundle, data):
    def asked(target: Target, name: str, captured):
        found = Stage(stage(bundle.manifest.dimensions, name), nn.Identity(), bundle.manifest.dimensions.axes)
        recipe = choose_recipe(target, Precision.INT8)
        builder = StageBuilder(get_profile("tiny"), recipe, None, None, lambda *_: None, captured)
        return len(builder.quantisers(found, bundle.file(f"{name}.onnx")))

    assert asked(Target.JETSON, "unet", data.root) == 1 + len(MARGINS)
    assert asked(Target.JETSON, "llm", data.root) == asked(Target.RTX, "unet", data.root) == 0
    assert asked(Target.JETSON, "unet", None) == 0
