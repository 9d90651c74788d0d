"""The whole way by the command line: capture, build, report, sensitivity, perplexity; and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgcc_calibration.build import PrecisionOptions
from mgcc_calibration.candidates.candidate import Candidate, CandidateOptions, Engine
from mgcc_calibration.candidates.image_judge import ImageJudge, judged_requests
from mgcc_calibration.candidates.selection import Budget
from mgcc_calibration.candidates.stage_graphs import FORMS
from mgcc_calibration.cli import main
from mgcc_calibration.data.capture import CaptureOptions, capture
from mgcc_calibration.data.requests import storyworld_requests
from mgcc_calibration.data.reuse import kept_or_captured
from mgcc_calibration.errors import DataError
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.quantise.plan import make_plan
from mgcc_calibration.quantise.qdq import write_qdq
from mgcc_calibration.report import report_paths
from mgcc_ref.precision import Precision
from mgcc_runtime import contract
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import DECODE, WITHOUT_WEIGHTS
from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_DONE
from mgcc_runtime.measure.verify import verify
from tests.calibration.lowered import write_low

QUICK = ["--rounds", "1", "--images", "1", "--tokens", "20", "--threads", "1"]


@pytest.fixture(scope="module")
def auto(bundle, data, tmp_path_factory):
    """Read only: a bundle of what is fastest here."""
    out = tmp_path_factory.mktemp("auto") / "low"
    command = ["build", "--bundle", bundle.root, "--data", data.root, "--out", out, "--least-db", "15", *QUICK]
    assert main([str(c) for c in command]) == EXIT_DONE
    return out


def test_capture(bundle, tmp_path, capsys):
    out = tmp_path / "data"
    command = ["capture", "--bundle", bundle.root, "--out", out, "--requests", "1", "--words", "0", "--stages", "unet"]
    assert main([str(c) for c in command]) == EXIT_DONE
    assert "1 requests" in capsys.readouterr().out and (out / "calibration.json").is_file()


def test_a_built_bundle_loads_verifies_and_draws(auto):
    made = Bundle.open(auto)
    failed = [f.detail for f in verify(auto, threads=1) if not f.passed]
    assert not failed
    assert set(made.manifest.precision) == set(made.manifest.stages)


def _uses_of(stages, name):
    return [stages[use]["choice"] for use in ((name, DECODE) if name == "llm" else (name,))]


def _chosen_places(stages, name):
    return tuple(choice["measurements"].index(choice["chosen"]) for choice in _uses_of(stages, name))


def _cheapest_places(stages, name):
    """By time and 0.2 ms a MB, a graph counted once; two of the language model only where fp32 is as large."""
    uses = [choice["measurements"] for choice in _uses_of(stages, name)]

    def size(places):
        return sum(uses[0][place]["bytes"] for place in set(places))

    def cost(places):
        return sum(m[place]["total_ms"] for m, place in zip(uses, places, strict=True)) + 0.2 * size(places) / 1e6

    fit = [[place for place, m in enumerate(entries) if not m["refused"]] for entries in uses]
    return min((p for p in product(*fit) if len(set(p)) == 1 or size(p) <= uses[0][0]["bytes"]), key=cost)


def test_the_report_says_what_was_measured_and_chosen(auto, bundle):
    as_json, as_text = report_paths(auto)
    values, text = json.loads(as_json.read_text()), as_text.read_text()
    made = Bundle.open(auto).manifest
    assert set(values["stages"]) == {*made.stages, DECODE} - WITHOUT_WEIGHTS
    graphs = made.graphs()
    for name, stage in values["stages"].items():
        graph = graphs.get(name, graphs["llm"])  # the language model's both uses may have chosen the same
        assert graph.precision == stage["choice"]["chosen"]["precision"]
        assert graph.engine == stage["choice"]["chosen"]["engine"]
        assert len(stage["choice"]["measurements"]) == (5 if name in ("llm", DECODE) else len(FORMS))
        assert f"| `{name}` |" in text
    for name in {*values["stages"]} - {DECODE}:
        assert _chosen_places(values["stages"], name) == _cheapest_places(values["stages"], name)
    assert values["data"]["source"].startswith("StoryWorld") and values["image_psnr_db"] > 5
    assert values["perplexity"]["tokens"] == 20 and "StoryBench: not measured" in text
    assert values["bytes_before"] == sum(f.bytes for f in bundle.manifest.files.values())


def test_storybench_goes_into_the_report(auto, tmp_path):
    own = tmp_path / "low"
    for path in report_paths(auto):
        shutil.copy(path, own.with_name(path.name))
    scores = {"whole_scene": {"value": 0.75, "ci95": [0.7, 0.8]}, "clip_similarity": {"value": None}}
    for name, value in (("before", 0.75), ("after", 0.742)):
        scores["whole_scene"]["value"] = value
        result = {"suite": "stories", "setting": "5", "items": 20, "scores": scores}
        (tmp_path / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    paths = [str(tmp_path / f"{n}.json") for n in ("before", "after")]
    command = ["report", "--bundle", str(own), "--before", paths[0], "--after", paths[1]]
    assert main(command) == EXIT_DONE
    text = report_paths(own)[1].read_text()
    assert "| whole_scene | 0.750 (0.700 to 0.800) | 0.742 (0.700 to 0.800) |" in text
    assert "| clip_similarity | not measured | not measured |" in text
    (tmp_path / "after.json").write_text("[]", encoding="utf-8")
    assert main(command) == EXIT_BAD_INPUT


@pytest.mark.parametrize(("asked", "expected"), [("int4-weights", "int4-weights"), ("int8", "int8-")])
def test_an_asked_precision_is_taken_where_it_keeps_to_the_budget(bundle, data, tmp_path, asked, expected):
    out = tmp_path / "low"
    command = ["build", "--bundle", bundle.root, "--data", data.root, "--out", out, "--precision", asked]
    command += ["--stages", "llm", "--least-db", "-20", *QUICK]
    assert main([str(c) for c in command]) == EXIT_DONE
    made = Bundle.open(out).manifest
    assert made.precision["llm"].startswith(expected)
    assert made.precision["unet"] == "fp32" and made.files["unet.onnx"] == bundle.manifest.files["unet.onnx"]


def test_a_bundle_for_a_device_without_openvino_asks_for_onnxruntime_alone(bundle, data, tmp_path):
    out = tmp_path / "low"
    command = ["build", "--bundle", bundle.root, "--data", data.root, "--out", out, "--engines", "onnxruntime"]
    assert main([str(c) for c in [*command, "--stages", "unet,vae_decoder", "--least-db", "15", *QUICK]]) == EXIT_DONE
    made = Bundle.open(out).manifest
    assert {stage.engine for stage in made.stages.values()} == {"onnxruntime", "host"}
    assert "openvino" not in made.requires
    text = report_paths(out)[1].read_text()
    assert "onnxruntime alone" in text and "| openvino |" not in text


def test_a_stage_stays_in_fp32_where_nothing_lower_keeps_to_the_budget(bundle, data, tmp_path):
    out = tmp_path / "low"
    command = ["build", "--bundle", bundle.root, "--data", data.root, "--out", out, "--precision", "int4-weights"]
    command += ["--stages", "llm", "--least-db", "90", *QUICK]
    assert main([str(c) for c in command]) == EXIT_DONE
    assert Bundle.open(out).manifest.precision["llm"] == "fp32"
    assert "nothing lower kept to the budget" in report_paths(out)[1].read_text()


def test_sensitivity_writes_figures_and_pictures(bundle, data, tmp_path, capsys):
    command = ["sensitivity", "--bundle", bundle.root, "--data", data.root, "--stage", "refiner", "--out", tmp_path]
    assert main([str(c) for c in [*command, "--least-db", "10", "--threads", "1"]]) == EXIT_DONE
    values = json.loads((tmp_path / "refiner.json").read_text())
    assert values["errors"] and values["signal_to_noise_db"] >= 10
    for name in ("refiner-layers.png", "refiner-images.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 1
    assert "layers in int8" in capsys.readouterr().out


def test_perplexity_of_two_bundles(bundle, auto, capsys):
    command = ["perplexity", "--bundle", bundle.root, "--against", auto, "--stories", "1", "--tokens", "12"]
    assert main([str(c) for c in command]) == EXIT_DONE
    assert "likeliest token at" in capsys.readouterr().out


def test_what_is_refused(bundle, data, auto, tmp_path, capsys):
    def refused(*command: object) -> str:
        assert main([str(c) for c in command]) != EXIT_DONE
        return capsys.readouterr().err

    build = ["build", "--bundle", bundle.root, "--data", data.root, "--out"]
    assert "is not empty" in refused(*build, auto, "--stages", "refiner", *QUICK)
    assert "no stage nonsense" in refused(*build, tmp_path / "a", "--stages", "nonsense")
    assert "stage solver has no weights to lower" in refused(*build, tmp_path / "a", "--stages", "unet,solver")
    assert "no calibration data" in refused(
        "build", "--bundle", bundle.root, "--data", tmp_path, "--out", tmp_path / "a"
    )
    assert "expected fp32 to start from" in refused(
        "build", "--bundle", lower(auto), "--data", data.root, "--out", tmp_path / "a"
    )
    other = Path(shutil.copytree(data.root, tmp_path / "other"))
    values = json.loads((other / "calibration.json").read_text())
    values["graphs"]["unet"] = "0" * 64
    (other / "calibration.json").write_text(json.dumps(values), encoding="utf-8")
    assert "captured from another graph" in refused(
        "build", "--bundle", bundle.root, "--data", other, "--out", tmp_path / "a", "--stages", "unet"
    )
    assert not (tmp_path / "a").exists()
    assert main(["build"]) == EXIT_BAD_INPUT


def lower(auto: Path) -> Path:
    """A bundle that says of its stages that they are in int8."""
    own = Path(shutil.copytree(auto, auto.parent / "marked"))
    values = json.loads((own / "manifest.json").read_text())
    values["precision"] = dict.fromkeys(values["precision"], "int8")
    (own / "manifest.json").write_text(json.dumps(values), encoding="utf-8")
    return own


def test_the_same_seed_gives_the_same_data_and_the_same_graph(bundle, tmp_path):
    """Captured twice and quantised from each, without timings: byte for byte; and what differs is the seed's doing."""

    def made(name: str, seed: int) -> tuple[list[bytes], bytes]:
        options = CaptureOptions(seed=seed, words=2, stages=("unet",), threads=1)
        data = capture(bundle, storyworld_requests(2, seed), options, tmp_path / name)
        plan = make_plan(Graph.load(bundle.file(bundle.manifest.stages["unet"].file)), lambda: data.samples("unet"))
        assert plan.layers
        path = write_qdq(plan).save(tmp_path / f"{name}.onnx")
        return [(data.root / entry.file).read_bytes() for entry in data.manifest.stages["unet"]], path.read_bytes()

    first, second, other = made("first", 0), made("second", 0), made("other", 1)
    assert first[0] == second[0] and len(first[0]) > 1
    assert first[1] == second[1]
    assert other[0] != first[0] and other[1] != first[1]


def test_data_are_captured_once_and_used_again(bundle, tmp_path):
    options = PrecisionOptions(
        Precision.INT8, ("unet",), CandidateOptions(least_db=10.0), Budget(10.0), 1, 1, images=0, tokens=0
    )
    folder, captured, how = tmp_path / "data", [], CaptureOptions(words=2, threads=1)
    for name in ("a", "b"):
        data = kept_or_captured(bundle, folder, how, 1, lambda i, n: captured.append(i))
        report = write_low(bundle, data, tmp_path / name, options)
        assert Bundle.open(tmp_path / name).manifest.precision["unet"] == report.stages["unet"].choice.chosen.precision
    assert captured == [1]
    kept_or_captured(bundle, folder, replace(how, seed=1), 1, lambda i, n: captured.append(i))
    assert captured == [1, 1]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="holds no calibration data"):
        kept_or_captured(bundle, tmp_path / "mine", how, 1)
    assert (tmp_path / "mine" / "thesis.txt").is_file()


def test_pictures_judge_what_is_fastest(bundle, data, tmp_path):
    """Asked that all stay the same, a stage whose noise moves one is left; and a bundle of noise is not judged."""
    trained = replace(bundle, manifest=replace(bundle.manifest, weights="trained"))
    options = PrecisionOptions(
        Precision.INT8, ("unet",), CandidateOptions(least_db=-20.0), Budget(-20.0, least_same=1.0), 1, 1, judged=2,
        images=0, tokens=0,
    )  # fmt: skip
    judged = write_low(trained, data, tmp_path / "judged", options).stages["unet"].choice
    shares = [m.same_pictures for m in judged.measurements if m.same_pictures is not None]
    assert shares and (judged.chosen.precision is Precision.FP32 or judged.chosen.same_pictures == 1.0)
    assert all(("judged pictures" in m.refused) == (m.same_pictures < 1.0) for m in judged.measurements
               if m.same_pictures is not None)  # fmt: skip
    plain = write_low(bundle, data, tmp_path / "plain", options).stages["unet"].choice
    assert all(m.same_pictures is None for m in plain.measurements) and plain.least_same is None


def test_a_judge_sees_the_candidate(bundle, tmp_path):
    """The stage's own graph changes nothing; a graph with its weights turned round changes each picture."""
    spec = contract.stage(bundle.manifest.dimensions, "vae_decoder")
    own = bundle.file(bundle.manifest.stages[spec.name].file)
    judge = ImageJudge(bundle, judged_requests(2, 0), threads=1)
    assert judge.share(spec, Candidate(Engine.ONNXRUNTIME, Precision.FP32, own)) == 1.0
    graph = Graph.load(own)
    for name in graph.weights:
        if graph.weight(name).dtype == np.float32:
            graph.set_weight(name, -graph.weight(name))
    wrong = graph.save(tmp_path / "vae_decoder.onnx")
    assert judge.share(spec, Candidate(Engine.ONNXRUNTIME, Precision.INT8, wrong)) == 0.0
    other = ImageJudge(bundle, judged_requests(2, 1), threads=1)
    assert judge.identity == ImageJudge(bundle, judged_requests(2, 0)).identity != other.identity
