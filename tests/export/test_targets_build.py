"""Bundles for the other targets, as far as a machine without a GPU goes, which is to the launch."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from mgcc_export import cli
from mgcc_export.build import build
from mgcc_export.bundle.rebuild import rebuild_command
from mgcc_export.errors import EngineRefusedError, ExportError
from mgcc_export.options import BuildOptions
from mgcc_export.precision.report import LowReport
from mgcc_export.predict.estimate import estimate_build
from mgcc_export.report.markdown import report_markdown
from mgcc_export.report.table import BuildReport, _Memory
from mgcc_export.stages.answers import ModelAnswers
from mgcc_export.stages.builder import StageBuilder
from mgcc_export.stages.cache import stage_cache
from mgcc_export.stages.stage import ExampleMaker, Stage, collect_stages
from mgcc_export.targets import ASKED, Target, choose_recipe, fallbacks
from mgcc_export.tensorrt.builder import EngineJob
from mgcc_export.tensorrt.process import run_engine_job
from mgcc_ref.config import get_profile
from mgcc_ref.model import MgccModel
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.folder import read_manifest
from mgcc_runtime.contract import WITHOUT_WEIGHTS
from mgcc_runtime.engines.tensorrt.record import read_record, record_path
from mgcc_runtime.measure.verify import verify
from mgcc_runtime.names import PLAN
from tests.packages import needs

Built = tuple[BuildReport, BuildOptions]


def silent(*_: str) -> None:
    pass


def options_for(tiny_build: Built, out: Path, target: Target, precision: Precision, *names: str) -> BuildOptions:
    return dataclasses.replace(tiny_build[1], recipe=choose_recipe(target, precision), out=out, stages=names)


def failures(bundle: Path) -> dict[str, str]:
    return {f.name: f.detail for f in verify(bundle) if not f.passed}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "precision"),
    [
        (Target.CPU, Precision.FP16),
        (Target.ORT_GPU, Precision.FP16),
        (Target.ORT_GPU, Precision.INT4),
        (Target.JETSON, Precision.FP16),
        (Target.JETSON, Precision.INT8),
        (Target.TENSORRT, Precision.FP16),
    ],
)
def test_bundles_of_graphs_pass_verify_here(
    tiny_build: Built, tmp_path: Path, target: Target, precision: Precision
) -> None:
    """Whole: files, every stage against the reference and one request, on the CPU that all of these fall back to.

    That it was no GPU is all that is found fault with; for a Jetson, whose engines are to be built, not even that.
    """
    options = options_for(tiny_build, tmp_path / "bundle", target, precision)
    report = build(options, silent)
    here = {"device"} if target is Target.ORT_GPU and not any(Path("/dev").glob("nvidia[0-9]")) else set()
    assert {*failures(options.out)} == here
    manifest = read_manifest(options.out)
    assert manifest.target == target
    assert {*manifest.precision.values()} <= {p.value for p in fallbacks(precision)}
    assert precision.value in manifest.precision.values()
    assert manifest.tolerances["llm"].relative_l2 > tiny_build[0].stages[1].tolerance.relative_l2
    assert (options.out / PLAN).exists() == options.recipe.on_device
    text = report_markdown(report)
    assert all(f"`{s.stage}`" in text for s in report.stages)
    assert "What could not be checked here" in text and "Precision by layer type" in text
    lowered = [s.lowered for s in report.stages if s.lowered]
    assert all(
        low.layers and sum(sum(t.values()) for t in low.layers.values()) == sum(low.node_types.values())
        for low in lowered
    )
    smaller = sum(s.weight_bytes for s in report.stages) / sum(s.weight_bytes for s in tiny_build[0].stages)
    assert smaller < (0.6 if precision is Precision.FP16 else 0.4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8, Precision.INT4])
def test_engines_are_built_recorded_and_kept(tiny_build: Built, tmp_path: Path, precision: Precision) -> None:
    needs("tensorrt_rtx")
    names = ("refiner", "vae_decoder")
    options = options_for(tiny_build, tmp_path / "bundle", Target.RTX, precision, *names)
    report = build(options, silent)
    manifest = read_manifest(options.out)
    assert {e.engine for e in manifest.stages.values()} == {"tensorrt_rtx"}
    for stage in report.stages:
        record = read_record(options.out / manifest.stages[stage.stage].file)
        assert record.rebuild == report.rebuild == rebuild_command(options)
        assert record.rebuild.endswith(f"--target rtx --precision {precision} --stages refiner,vae_decoder")
        assert stage.lowered is not None and stage.lowered.engine is not None
        assert stage.lowered.layers == record.precision_by_layer()
        assert stage.lowered.command.startswith("tensorrt_rtx --onnx=")
        assert stage.lowered.command.endswith(
            f"# {stage.stage}.onnx is in DIR of the same build with --target ort-gpu --stages {stage.stage} --out DIR"
        )
        assert record.command == stage.lowered.command
        assert report.built_with["tensorrt_rtx"] == manifest.built_with["tensorrt_rtx"] == record.version
    _command_has_its_graph(options, report)
    assert not list(options.out.glob("*.onnx"))
    assert "Precision by layer type" in report_markdown(report)
    steps: list[tuple[str, str]] = []
    build(options, lambda stage, step: steps.append((stage, step)))
    assert stage_cache(options.cache).last_s(f"tiny-refiner-rtx-{precision}", "lowered", "engine", "seconds") > 0
    assert {s for s, step in steps if step == "kept from an earlier build"} == set(names)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_every_stage_gets_an_engine(tiny_build: Built, tmp_path: Path, precision: Precision) -> None:
    """Also the grounder, whose rounds share matrices, at the width that was asked for."""
    needs("tensorrt_rtx")
    options = options_for(tiny_build, tmp_path / "bundle", Target.RTX, precision)
    report = build(options, silent)
    assert {s.stage for s in report.stages} == {s.stage for s in tiny_build[0].stages}
    assert {s.precision for s in report.stages} & {precision.value}
    for stage in report.stages:
        assert stage.lowered is not None and stage.lowered.engine is not None
        if stage.stage in WITHOUT_WEIGHTS:
            assert (stage.precision, stage.lowered.reasons) == ("fp32", ())
        else:
            assert (stage.precision in (precision, "int8")) or stage.lowered.reasons  # 4 bits need wide matrices


def test_a_refused_graph_gets_the_next_precision_and_other_failures_end_the_build(
    tiny: MgccModel, tiny_build: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    end: Exception = EngineRefusedError("stage refiner: the compiler cannot build an engine (it fails inside)")

    def compile_it(builder: StageBuilder, stage: Stage, graph: Path, report: LowReport, name: str) -> LowReport:
        tried.append(report.precision)
        if report.precision != "fp32":
            raise end
        return report

    monkeypatch.setattr(StageBuilder, "build_engine", compile_it)
    recipe, cache = choose_recipe(Target.RTX, Precision.INT8), stage_cache(tmp_path / "cache")
    builder = StageBuilder(get_profile("tiny"), recipe, ModelAnswers(ExampleMaker(tiny)), cache, silent)
    (stage,) = collect_stages(tiny, ("refiner",))
    source, graph = tiny_build[1].out / "refiner.onnx", tmp_path / "refiner.onnx"
    lowered, report, _, _ = builder._lowest_that_builds(stage, source, graph, "refiner")
    assert tried == ["int8", "fp16", "fp32"] and lowered.precision is Precision.FP32
    assert [reason.split(":")[0] for reason in report.reasons] == ["int8", "fp16"]
    end = ExportError("stage refiner: the process that built its engine was killed")
    with pytest.raises(ExportError, match="was killed"):
        builder._lowest_that_builds(stage, source, graph, "refiner")
    assert tried == ["int8", "fp16", "fp32", "int8"]


def _command_has_its_graph(options: BuildOptions, report: BuildReport) -> None:
    """The comment's own words after the command that the record has: the file is there, and its engine is the same."""
    (text,) = [s.lowered.command for s in report.stages if s.stage == "refiner" and s.lowered]
    command, comment = text.split(" # ")
    words = shlex.split(f"{report.rebuild} {comment[comment.index('--target') :]}")
    folder = options.out.with_name("graphs")
    words[words.index("DIR")] = str(folder)
    assert cli.main([*words[2:], "--cache", str(options.cache), "--ignore-estimate"]) == 0
    graph, engine = folder / "refiner.onnx", folder / "refiner.engine"
    assert f"--onnx={graph.name}" in shlex.split(command)
    job = EngineJob("tensorrt_rtx", "refiner", str(graph), str(engine), str(record_path(engine)), (), "")
    profiles = read_record(options.out / engine.name).profiles
    run_engine_job(dataclasses.replace(job, profiles=tuple(dict(p.shapes) for p in profiles)))
    ours, theirs = (read_record(root / engine.name) for root in (folder, options.out))
    assert (ours.inputs, ours.outputs, ours.layers) == (theirs.inputs, theirs.outputs, theirs.layers)


@pytest.mark.parametrize("profile", ["tiny", "story", "paper"])
def test_estimates_follow_the_precision(profile: str) -> None:
    of = {p: estimate_build(get_profile(profile), (), choose_recipe(Target.RTX, p)) for p in ASKED[2:]}
    sizes = [of[p].bundle_bytes for p in (Precision.FP16, Precision.INT8, Precision.INT4)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    plain = estimate_build(get_profile(profile))
    assert of[Precision.FP16].seconds > plain.seconds
    assert of[Precision.FP16].cache_bytes > 0
    assert (plain.cache_bytes > 0) is get_profile(profile).llm.streamed  # whose weights are copied from the cache


def test_estimates_of_the_smaller_profiles_stay() -> None:
    """Of tiny and story, with which they were fitted (the story's UNet before it had textures): seconds and MiB."""
    of = {}
    for name in ("tiny", "story"):
        for target, precision in ((Target.CPU, Precision.FP32), (Target.RTX, Precision.FP16)):
            found = estimate_build(get_profile(name), (), choose_recipe(target, precision))
            of[name, target] = (round(found.seconds), round(found.peak_memory_bytes / 2**20))
    assert of["tiny", Target.CPU] == (59, 918) and of["story", Target.CPU][0] == 152
    assert of["tiny", Target.RTX][0] == 114 and of["story", Target.RTX][0] == 268
    assert of["story", Target.CPU][1] == of["story", Target.RTX][1] == 3145


def test_what_cannot_fit_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("mgcc_export.report.table._memory", lambda: _Memory(2**20, 2**20))
    assert cli.main(["--profile", "tiny", "--target", "rtx", "--precision", "fp16", "--out", str(tmp_path / "o")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "this machine has 1 MiB of memory available of 1 in all" in line
    assert "use a larger machine, a lower --precision or fewer --stages; --ignore-estimate builds all the same" in line
