"""`verify` passes a sound bundle and names what is wrong with another."""

import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest

from mgcc_runtime import Box, Pipeline
from mgcc_runtime.box_placement import to_whole_pixels
from mgcc_runtime.engines import Session
from mgcc_runtime.measure.golden import request_golden
from mgcc_runtime.measure.golden_request import play_request
from mgcc_runtime.measure.similarity import common_prefix, cosine, psnr_db, relative_l2
from mgcc_runtime.measure.verify import Report, verify
from tests.runtime.tiny_bundle import reseal


def failed(path):
    return {finding.name: finding.detail for finding in verify(path) if not finding.passed}


def test_sound_bundle(bundle_path):
    findings = list(verify(bundle_path))
    assert [f.name for f in findings] == [
        "files", "stage vision_encoder", "stage llm", "stage refiner", "stage grounder", "stage unet",
        "stage solver", "stage vae_decoder", "request",
    ]  # fmt: skip
    assert all(f.passed for f in findings)


def test_stages_have_latencies(bundle_path):
    stages = [f for f in verify(bundle_path) if f.name.startswith("stage ")]
    assert all(f.values["ms"] > 0 and f.values["first_ms"] > 0 for f in stages)
    assert all("ms (first run" in f.detail for f in stages)


def test_what_is_sent_back_names_machine_and_bundle(bundle_path):
    findings = tuple(verify(bundle_path))
    sent = json.loads(json.dumps(Report(str(bundle_path), findings).for_sending()))
    assert sent["passed"] is True and len(sent["checks"]) == len(findings)
    assert sent["machine"]["packages"]["numpy"] == np.__version__
    assert sent["built"]["target"] == "cpu" and sent["built"]["engines"]["llm"] == "onnxruntime"


def test_a_bundle_that_cannot_be_read_can_be_sent_too(tmp_path):
    sent = Report(str(tmp_path), tuple(verify(tmp_path))).for_sending()
    assert sent["passed"] is False and sent["built"] == {}


def test_altered_bundle_is_not_run(own_bundle):
    (own_bundle / "unet.onnx").write_bytes(b"x" * (own_bundle / "unet.onnx").stat().st_size)
    findings = list(verify(own_bundle))
    assert [(f.name, f.passed) for f in findings] == [("files", False)]
    assert "unet.onnx is altered" in findings[0].detail


def scale_weights(path, factor, *, last=False):
    """Multiply every matrix of a graph, or the one of its last convolution alone."""
    model = onnx.load(path)
    convolutions = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if weight.name == convolutions[-1] if last else values.ndim > 1 and values.dtype == np.float32:
            weight.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(factor), weight.name))
    onnx.save(model, path)


def test_stage_with_other_weights(own_bundle):
    scale_weights(own_bundle / "unet.onnx", 1.5)
    found = failed(reseal(own_bundle))
    assert set(found) == {"stage unet", "request"}
    assert "at least 0.99999" in found["stage unet"]
    assert "dB (at least 45)" in found["request"]


def test_stage_slightly_off_is_within_its_own_tolerance(own_bundle):
    scale_weights(own_bundle / "vae_decoder.onnx", 1.01, last=True)
    reseal(own_bundle)
    assert "stage vae_decoder" in failed(own_bundle)
    values = json.loads((own_bundle / "manifest.json").read_text())
    values["tolerances"]["vae_decoder"] = {"cosine": 0.999, "relative_l2": 0.05}
    values["request_tolerance"] = {"psnr_db": 20.0, "token_match": 1.0}
    (own_bundle / "manifest.json").write_text(json.dumps(values))
    assert not failed(own_bundle)


def test_other_tokens(own_bundle):
    path = own_bundle / "golden" / "request.json"
    values = json.loads(path.read_text())
    values["token_ids"][-1] += 1
    path.write_text(json.dumps(values))
    assert set(failed(reseal(own_bundle))) == {"request"}


def test_other_boxes(own_paper):
    path = own_paper / "golden" / "request.json"
    values = json.loads(path.read_text())
    values["boxes"][0]["label"] += "s"
    path.write_text(json.dumps(values))
    assert "other objects in the layout" in failed(reseal(own_paper))["request"]


def test_moved_boxes(own_paper):
    """On whole pixels a box may be two off, as place and size may round the other way; never more, elsewhere less."""
    request, manifest = own_paper / "golden" / "request.json", own_paper / "manifest.json"
    golden, values = json.loads(request.read_text()), json.loads(manifest.read_text())
    free = np.array([box["xyxy"] for box in golden["boxes"]])
    side = values["dimensions"]["image_px"]
    places = {"free": free, "whole_pixels": to_whole_pixels(free / side, side) * side}
    for edges, moved_px, passes in (
        ("whole_pixels", 2.0, True),
        ("whole_pixels", 2.5, False),
        ("free", 0.2, True),
        ("free", 2.0, False),
    ):
        for box, place in zip(golden["boxes"], places[edges].tolist(), strict=True):
            box["xyxy"] = place
        golden["boxes"][0]["xyxy"][0] += moved_px
        values["layout"]["box_edges"] = edges
        request.write_text(json.dumps(golden))
        manifest.write_text(json.dumps(values))
        found = failed(reseal(own_paper))
        assert ("boxes within" in found.get("request", "")) is not passes, (edges, moved_px, found)


def test_a_turned_edge_is_drawn_again_with_the_references_boxes(own_paper):
    """The picture beside other boxes differs, with these it is the reference's; farther away nothing is drawn again."""
    manifest = own_paper / "manifest.json"
    values = json.loads(manifest.read_text())
    values["layout"]["box_edges"] = "whole_pixels"
    manifest.write_text(json.dumps(values))
    with Pipeline.load(own_paper) as pipeline:
        golden = request_golden(pipeline.bundle)
        draw = partial(pipeline.generate, golden.parts, seed=golden.seed, steps=golden.steps, guidance=golden.guidance)
        own = draw(words=golden.words).boxes
        side = pipeline.bundle.manifest.dimensions.image_px
        for moved_px, redrawn in ((1.0, True), (3.0, False)):
            boxes = [Box(box.label, tuple(np.clip(np.add(box.xyxy, moved_px), 0, side))) for box in own]
            image = np.asarray(draw(boxes=boxes).image)
            told = replace(golden, boxes=np.array([box.xyxy for box in boxes]), image=image)
            told = replace(told, labels=tuple(box.label for box in own))
            played = play_request(pipeline, told)
            assert (played.redrawn, played.psnr_db == float("inf")) == (redrawn, redrawn)
            assert played.box_error_px == moved_px


@pytest.mark.parametrize("name", ["golden/unet.npz", "golden/request.json"])
def test_missing_golden_data(own_bundle, name):
    (own_bundle / name).unlink()
    found = failed(reseal(own_bundle))
    assert len(found) == 1
    assert f"lists no {name}" in next(iter(found.values()))


def test_golden_data_with_objects_in_it(own_bundle):
    np.savez(own_bundle / "golden" / "unet.npz", **{"in.latents": np.array([{}], object)})
    assert "is not a plain .npz file" in failed(reseal(own_bundle))["stage unet"]


def for_gpu(root, target, engine):
    """The bundle under another target's name, its stages played by that one's engine."""
    values = json.loads((root / "manifest.json").read_text())
    values["target"] = target
    for entry in values["stages"].values():
        entry["engine"] = engine
    (root / "manifest.json").write_text(json.dumps(values))
    return reseal(root)


def test_the_report_says_what_each_stage_ran_on(bundle_path):
    findings = tuple(verify(bundle_path))
    sent = json.loads(json.dumps(Report(str(bundle_path), findings).for_sending()))
    on = {check["name"]: check["providers"] for check in sent["checks"]}
    assert on["stage unet"] == ["CPUExecutionProvider"] and on["files"] == on["request"] == []
    assert on.pop("stage solver") == ["numpy on the CPU"]
    told = {f.name: f.detail for f in findings}
    assert all(told[name].endswith(f" on {where[0]}") for name, where in on.items() if name.startswith("stage "))
    assert sent["machine"]["gpus"] is not None and "cuda" in sent["machine"] and "cpu" in sent["machine"]["clocks"]


@pytest.mark.parametrize(
    ("target", "engine", "way_out"),
    [
        ("ort-gpu", "onnxruntime_gpu", r"nvidia-smi.*pip install 'mgcc-edge\[gpu\]'"),
        ("jetson", "onnxruntime", r"build_plan\.json"),
    ],
)
def test_a_gpus_bundle_on_the_cpu_alone_fails(own_bundle, monkeypatch, target, engine, way_out):
    """Its values are right, and so the stages pass; the device does not do what the bundle is for."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("mgcc_runtime.engines.onnxruntime.gpu.plugged_in", lambda: ())
    monkeypatch.setattr(
        "mgcc_runtime.measure.verify.describe_gpus", lambda: {"gpus": [], "cuda": None, "jetson": {"model": "x"}}
    )
    found = failed(for_gpu(own_bundle, target, engine))
    assert set(found) == {"device"}
    assert re.search(rf"llm, .*unet, .*on the CPU alone, expected a GPU, which target {target} is for; .*{way_out}",
                     found["device"])  # fmt: skip
    assert not Report(str(own_bundle), tuple(verify(own_bundle))).passed


def test_graphs_without_engines_pass_where_there_is_no_gpu_and_say_so(own_bundle, monkeypatch):
    monkeypatch.setattr("mgcc_runtime.measure.verify.describe_gpus", lambda: {"gpus": [], "cuda": None})
    findings = tuple(verify(for_gpu(own_bundle, "jetson", "onnxruntime")))
    assert Report(str(own_bundle), findings).passed
    (device,) = [f for f in findings if f.name == "device"]
    assert "no GPU here" in device.detail and "build_plan.json" in device.detail


def test_a_gpus_bundle_on_the_gpu_passes_and_one_stage_beside_it_is_named(own_bundle, monkeypatch):
    """With the providers that a GPU would give, since there is none here."""
    gpu, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    fallen: set[str] = set()
    monkeypatch.setattr(
        "mgcc_runtime.engines.onnxruntime.session.OrtSession.providers",
        property(lambda self: (cpu,) if fallen & {*self._outputs} else (gpu, cpu)),
    )
    for_gpu(own_bundle, "ort-gpu", "onnxruntime_gpu")
    (device,) = [f for f in verify(own_bundle) if f.name == "device"]
    assert device.passed and device.providers == (gpu, cpu)
    fallen.add("prediction")
    assert failed(own_bundle)["device"].startswith("unet ran on the CPU alone")


@pytest.fixture
def disturbed(monkeypatch):
    """Adds 1 to every output of the calls of a stage that `when(spec, count, feeds)` names, as a bad replay would."""

    def disturb(when):
        run, calls = Session.run, Counter()

        def wrong(self, feeds, keep=()):
            calls[self] += 1
            found = run(self, feeds, keep)
            if not when(self.spec.name, calls[self], feeds):
                return found
            return replace(found, arrays={name: value + 1 for name, value in found.arrays.items()})

        monkeypatch.setattr(Session, "run", wrong)

    return disturb


def test_the_last_run_is_compared_too(bundle_path, disturbed):
    """The first is launched, the second captured, the later ones replayed: a wrong replay has to show."""
    disturbed(lambda stage, count, feeds: stage == "vae_decoder" and count > 2)
    (stage,) = [f for f in verify(bundle_path) if f.name == "stage vae_decoder"]
    assert not stage.passed and "worst output image in the last run" in stage.detail
    assert stage.values["first_relative_l2"] < 1e-3 < stage.values["last_relative_l2"]


def test_one_position_behind_a_cache_is_compared_too(bundle_path, disturbed):
    """What decoding asks of a language model with one graph: with TensorRT that is another profile."""
    disturbed(lambda stage, count, feeds: stage == "llm" and feeds["inputs_embeds"].shape[1] == 1)
    (stage,) = [f for f in verify(bundle_path) if f.name == "stage llm"]
    assert not stage.passed and "for one position alone" in stage.detail
    assert stage.values["last_relative_l2"] < 1e-3 < stage.values["step_relative_l2"]


def test_measures():
    a = np.array([3.0, 4.0])
    assert cosine(a, 2 * a) == pytest.approx(1)
    assert cosine(a, np.zeros(2)) == 0
    assert cosine(np.zeros(2), np.zeros(2)) == 1
    assert relative_l2(np.array([3, 4.5]), a) == pytest.approx(0.1)
    assert relative_l2(np.ones(2), np.zeros(2)) == float("inf")
    image = np.full((2, 2, 3), 100, np.uint8)
    assert psnr_db(image, image) == float("inf")
    assert psnr_db(image + np.uint8(1), image) == pytest.approx(48.13, abs=0.01)
    assert psnr_db(image[:1], image) == 0
    assert common_prefix((1, 2, 3), (1, 2, 4)) == pytest.approx(2 / 3)
    assert common_prefix((), ()) == 1
