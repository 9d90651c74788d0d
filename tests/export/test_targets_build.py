"""Bundles for the other targets, as far as a machine without a GPU goes, which is to the launch."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mgcc_export import cli
from mgcc_export.build import BuildOptions, build
from mgcc_export.debug_stage import write_debug
from mgcc_export.device_build import PLAN, build_on_device, build_plan, main
from mgcc_export.errors import ExportError, OutputFolderError
from mgcc_export.estimate import estimate_build
from mgcc_export.lower import types_by_operator
from mgcc_export.rebuild import rebuild_command
from mgcc_export.report import BuildReport
from mgcc_export.report_text import report_markdown
from mgcc_export.stage_cache import StageCache
from mgcc_export.stages import Stage
from mgcc_export.targets import TOLERANCES, Precision, Target, choose_recipe, fallbacks
from mgcc_ref.config import get_profile
from mgcc_runtime.bundle import Bundle, read_manifest
from mgcc_runtime.contract import stages
from mgcc_runtime.engines.engine_record import read_record
from mgcc_runtime.errors import BundleError
from mgcc_runtime.manifest import Tolerance
from mgcc_runtime.verify import verify
from tests.runtime.golden_data import add_golden
from tests.runtime.tiny_bundle import DIMENSIONS, make_bundle, reseal

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
    ],
)
def test_bundles_of_graphs_pass_verify_here(
    tiny_build: Built, tmp_path: Path, target: Target, precision: Precision
) -> None:
    """Whole: files, every stage against the reference and one request, on the CPU that all of these fall back to."""
    options = options_for(tiny_build, tmp_path / "bundle", target, precision)
    report = build(options, silent)
    assert failures(options.out) == {}
    manifest = read_manifest(options.out)
    assert manifest.target == target
    assert {*manifest.precision.values()} <= {p.value for p in fallbacks(precision)}
    assert precision.value in manifest.precision.values()
    assert manifest.tolerances["llm"].relative_l2 > tiny_build[0].stages[1].tolerance.relative_l2
    assert (options.out / PLAN).exists() == (target is Target.JETSON)
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
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for Linux and Windows on x86-64 alone")
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
    assert not list(options.out.glob("*.onnx"))
    assert "Precision by layer type" in report_markdown(report)
    steps: list[tuple[str, str]] = []
    build(options, lambda stage, step: steps.append((stage, step)))
    assert StageCache(options.cache).last_s(f"tiny-refiner-rtx-{precision}", "lowered", "engine", "seconds") > 0
    assert {s for s, step in steps if step == "kept from an earlier build"} == set(names)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle with a plan, as `--target jetson` writes it."""
    root = add_golden(make_bundle(tmp_path_factory.mktemp("planned") / "bundle"))
    import torch

    chosen = [Stage(spec, torch.nn.Identity(), DIMENSIONS.axes) for spec in stages(DIMENSIONS)]
    plan = build_plan(chosen, choose_recipe(Target.JETSON, Precision.FP16), "tiny")
    (root / PLAN).write_text(json.dumps(plan))
    return reseal(root)


@pytest.mark.slow
def test_the_device_builds_engines_and_goes_on_after_a_kill(planned: Path, tmp_path: Path) -> None:
    """With TensorRT-RTX in TensorRT's place: the same calls, and this machine has it."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for Linux and Windows on x86-64 alone")
    out, told = tmp_path / "engines", list[str]()

    def stop_at_refiner(text: str) -> None:
        told.append(text)
        if text.startswith("refiner ("):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_on_device(planned, out, stop_at_refiner, "tensorrt_rtx")
    with pytest.raises(BundleError, match=r"it has no manifest\.json"):
        Bundle.open(out)
    told.clear()
    build_on_device(planned, out, told.append, "tensorrt_rtx")
    assert [t.split(";")[0] for t in told if "kept" in t] == [
        "vision_encoder: kept from an earlier run",
        "llm: kept from an earlier run",
    ]
    assert len([t for t in told if "; equivalent: tensorrt_rtx --onnx=" in t]) == len(stages(DIMENSIONS))
    bundle = Bundle.open(out)
    assert {e.engine for e in bundle.manifest.stages.values()} == {"tensorrt_rtx"}
    assert {p.name for p in out.iterdir()} >= {"unet.engine", "unet.engine.json", "golden"}
    assert not list(out.glob("*.onnx")) and not list(out.glob(".*.done"))
    if not any(Path("/dev").glob("nvidia[0-9]")):
        assert "has no CUDA driver" in failures(out)["stage unet"]
    _altered_bytes_are_refused(out, tmp_path)


def _altered_bytes_are_refused(bundle: Path, folder: Path) -> None:
    for name in ("unet.engine", "unet.engine.json"):
        copy = folder / f"altered-{name}"
        shutil.copytree(bundle, copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        with pytest.raises(BundleError, match=rf"{name} is altered"):
            Bundle.open(copy)


def test_a_device_without_tensorrt_says_how_to_get_it(planned: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"the package no_such_trt cannot be imported.*JetPack"):
        build_on_device(planned, tmp_path / "out", silent, "no_such_trt")
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_a_plan_and_a_taken_folder_are_refused(
    planned: Path, bundle_without_plan: Path, tmp_path: Path, capsys
) -> None:
    assert main(["--bundle", str(bundle_without_plan), "--out", str(tmp_path / "out")]) == 2
    assert f"has no {PLAN}" in capsys.readouterr().err
    with pytest.raises(OutputFolderError, match="exists already"):
        build_on_device(planned, planned, silent, "json")  # any importable module: the folder is looked at first


@pytest.fixture(scope="module")
def bundle_without_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("unplanned") / "bundle")


def test_the_plan_has_one_command_and_all_shapes(planned: Path) -> None:
    plan = json.loads((planned / PLAN).read_text())
    assert plan["command"] == "python -m mgcc_export.device_build --bundle DIR --out DIR-engines"
    assert set(plan["stages"]) == {s.name for s in stages(DIMENSIONS)}
    assert plan["stages"]["llm"]["equivalent"].startswith("trtexec --onnx=llm.onnx --saveEngine=llm.engine")
    assert len(plan["stages"]["llm"]["profiles"]) == 2


@pytest.mark.parametrize("profile", ["tiny", "story", "paper"])
def test_estimates_follow_the_precision(profile: str) -> None:
    of = {p: estimate_build(get_profile(profile), (), choose_recipe(Target.RTX, p)) for p in list(Precision)[2:]}
    sizes = [of[p].bundle_bytes for p in (Precision.FP16, Precision.INT8, Precision.INT4)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    plain = estimate_build(get_profile(profile))
    assert of[Precision.FP16].seconds > plain.seconds
    assert of[Precision.FP16].cache_bytes > 0
    assert (plain.cache_bytes > 0) is get_profile(profile).llm.streamed  # whose weights are copied from the cache


def test_what_cannot_fit_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("mgcc_export.report._memory_bytes", lambda: 2**20)
    assert cli.main(["--profile", "tiny", "--target", "rtx", "--precision", "fp16", "--out", str(tmp_path / "o")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "this machine has 1 MiB of memory" in line
    assert "use a larger machine, a lower --precision or fewer --stages; --ignore-estimate builds all the same" in line


def test_what_missed_can_be_debugged_too(tiny_build: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle never gets the graph that missed its tolerance; who wants to know why does."""
    strict = {**TOLERANCES, Precision.INT8: Tolerance(0.9999999, 1e-7)}
    monkeypatch.setattr("mgcc_export.targets.TOLERANCES", strict)
    options = options_for(tiny_build, tmp_path / "b", Target.ORT_GPU, Precision.INT8)
    folder, _ = write_debug(options, "llm", silent)
    asked, lowered = (types_by_operator(folder / name) for name in ("asked.onnx", "lowered.onnx"))
    assert asked["DequantizeLinear"]["int8"] > 0 and "DequantizeLinear" not in lowered
    assert not list(folder.glob("half.onnx*"))


@pytest.mark.slow
def test_a_debugged_stage_can_be_run_by_polygraphy(tiny_build: Built, tmp_path: Path) -> None:
    options = options_for(tiny_build, tmp_path / "b", Target.ORT_GPU, Precision.FP16)
    folder, command = write_debug(options, "refiner", silent)
    assert {p.name for p in folder.iterdir()} >= {"refiner.onnx", "lowered.onnx", "case-0.npz", "data_loader.py"}
    assert not (folder / "asked.onnx").exists()  # it is what was asked for
    with np.load(folder / "case-0.npz", allow_pickle=False) as case:
        assert {"in.image_features", "out.conditioning"} <= set(case.files)
    pytest.importorskip("polygraphy", reason="a tool of the extra rtx")
    tool, *words = shlex.split(command)
    script = Path(sys.executable).parent / tool
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rtx = write_debug(options_for(tiny_build, tmp_path / "b", Target.RTX, Precision.FP16), "refiner", silent)[1]
    assert rtx.startswith("POLYGRAPHY_USE_TENSORRT_RTX=1 polygraphy run") and "--trt-max-shapes" in rtx
