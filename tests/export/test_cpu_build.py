"""Below fp32 on the CPU by the exporter's own command: engine and precision of each stage by measurement."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from mgcc_calibration.build import PrecisionOptions
from mgcc_calibration.data.samples import CalibrationData
from mgcc_calibration.errors import DataError
from mgcc_export.cli import main
from mgcc_export.cpu_build import build_for_cpu
from mgcc_export.options import BuildOptions
from mgcc_export.predict.estimate import estimate_build
from mgcc_export.report.table import BuildReport
from mgcc_export.targets import ASKED, Target, choose_recipe
from mgcc_ref.config import get_profile
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import DECODE
from mgcc_runtime.measure.verify import verify

Built = tuple[BuildReport, BuildOptions]
KEPT = "kept from an earlier build"
#: One round of timing and nothing drawn: what is chosen is not in question here, but that it is done, and once.
QUICK = PrecisionOptions(rounds=1, threads=1, images=0, tokens=0)


def _options(tiny_build: Built, out: Path, precision: Precision, *names: str) -> BuildOptions:
    recipe = choose_recipe(Target.CPU, precision)
    return dataclasses.replace(tiny_build[1], recipe=recipe, out=out, stages=names)


@pytest.mark.slow
def test_auto_by_the_command_line(capsys: pytest.CaptureFixture[str], tiny_build: Built, tmp_path: Path) -> None:
    """A whole bundle that verifies, its table and reports; nothing else is left beside it.

    The UNet, on which the search for ranges takes longest, stays in fp32; tests/calibration has it.
    """
    out, report = tmp_path / "out" / "auto", tmp_path / "report.json"
    names = {"vision_encoder", "llm", "refiner", "grounder", "vae_decoder"}
    arguments = ["--profile", "tiny", "--precision", "auto", "--cache", str(tiny_build[1].cache)]
    arguments += ["--stages", ",".join(sorted(names))]
    assert main([*arguments, "--out", str(out), "--report", str(report)]) == 0
    manifest, values = Bundle.open(out).manifest, json.loads(report.read_text())
    assert [f.name for f in verify(out) if not f.passed] == []
    printed = capsys.readouterr().out.splitlines()
    for name, stage in values["stages"].items():
        chosen = stage["choice"]["chosen"]
        graph = manifest.graphs().get(name, manifest.graphs()["llm"])  # both uses of it may have chosen the same
        assert (graph.engine, graph.precision) == (chosen["engine"], chosen["precision"])
        assert any(line.startswith(f"{name} ") and chosen["precision"] in line for line in printed)
    assert set(values["stages"]) == {*names, DECODE}
    assert {name: manifest.precision[name] for name in manifest.precision if name not in names} == {
        "unet": "fp32", "solver": "fp32",
    }  # fmt: skip
    assert values["bundle"] == str(out) and values["exported"]["precision"] == "fp32"
    assert values["image_psnr_db"] > 5
    text = report.with_suffix(".md").read_text()
    assert "What was measured" in text and "against PyTorch in fp32" in text
    assert {p.name for p in out.parent.iterdir()} - {".auto.lock"} == {
        "auto", "auto.calibration.json", "auto.calibration.md",
    }  # fmt: skip


@pytest.mark.slow
def test_a_killed_build_goes_on_after_the_stages_that_are_done(tiny_build: Built, tmp_path: Path) -> None:
    options = _options(tiny_build, tmp_path / "int4", Precision.INT4, "refiner", "grounder")

    def stop_at_grounder(stage: str, step: str) -> None:
        if (stage, step) == ("grounder", "measuring"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_for_cpu(options, stop_at_grounder, QUICK)
    assert not options.out.exists()
    assert not (tmp_path / ".int4.work").exists()
    steps: list[tuple[str, str]] = []
    first = build_for_cpu(options, lambda *step: steps.append(step), QUICK)
    lowering = steps[steps.index(("golden", "running one whole request through the reference")) :]
    assert ("refiner", KEPT) in lowering and ("grounder", "measuring") in lowering
    assert not [step for step in steps if step[0] == "calibration"]
    manifest = Bundle.open(options.out).manifest
    assert {n for n, p in manifest.precision.items() if p != "fp32"} <= {"refiner", "grounder"}
    assert set(first.lowered.stages) == {"refiner", "grounder"}
    steps.clear()
    again = build_for_cpu(options, lambda *step: steps.append(step), QUICK)
    assert steps.count(("grounder", KEPT)) == 2  # in fp32 and lowered
    assert again.lowered.stages == first.lowered.stages


@pytest.mark.slow
def test_the_users_calibration_data_is_read_and_never_replaced(tiny_build: Built, tmp_path: Path) -> None:
    options = _options(tiny_build, tmp_path / "int8", Precision.INT8, "vae_decoder")
    build_for_cpu(options, lambda *_: None, QUICK)
    data = options.cache / "tiny-calibration"
    asked = dataclasses.replace(options, captured=data)
    report = build_for_cpu(asked, lambda *_: None, QUICK)
    assert report.lowered.data["requests"] == CalibrationData.open(data).manifest.requests
    own = shutil.copytree(data, tmp_path / "own")
    values = json.loads((own / "calibration.json").read_text())
    values["graphs"]["vae_decoder"] = "0" * 64
    (own / "calibration.json").write_text(json.dumps(values))
    before = options.out.stat().st_ino
    with pytest.raises(DataError, match=r"of stage vae_decoder was captured from another graph .* capture it again"):
        build_for_cpu(dataclasses.replace(options, captured=own), lambda *_: None, QUICK)
    assert json.loads((own / "calibration.json").read_text()) == values
    assert options.out.stat().st_ino == before  # the bundle of the build before stands as it was


@pytest.mark.parametrize("profile", ["tiny", "story", "paper"])
def test_estimates_below_fp32(profile: str) -> None:
    of = {p: estimate_build(get_profile(profile), (), choose_recipe(Target.CPU, p)) for p in ASKED if p != "fp16"}
    assert of[Precision.INT4].bundle_bytes < of[Precision.INT8].bundle_bytes < of[Precision.AUTO].bundle_bytes
    assert of[Precision.AUTO].seconds > of[Precision.FP32].seconds
    assert of[Precision.AUTO].cache_bytes > 0
