"""`build_engines.py --target jetson` or tensorrt: engines where it runs on the device, elsewhere all that it needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgcc_export.cli import main
from mgcc_export.options import BuildOptions
from mgcc_export.report.table import BuildReport
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.engines.tensorrt.record import read_record
from mgcc_runtime.names import PLAN
from tests.export.device_fakes import fake_device

Built = tuple[BuildReport, BuildOptions]


def arguments_for(tiny_build: Built, out: Path, target: str = "jetson") -> list[str]:
    """In fp32, whose stages the cache has."""
    words = ["--profile", "tiny", "--target", target, "--precision", "fp32", "--ignore-estimate"]
    return [*words, "--cache", str(tiny_build[1].cache), "--out", str(out)]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["jetson", "tensorrt"])
def test_on_the_device_the_same_command_builds_the_engines(
    tiny_build: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    device, out, graphs = fake_device(monkeypatch), tmp_path / "bundle", tmp_path / "bundle-onnx"
    device.interrupt_at = "unet"
    assert main(arguments_for(tiny_build, out, target)) == 130
    assert "run the same command to go on" in capsys.readouterr().err
    assert not out.exists() and Bundle.open(graphs).has(PLAN)
    device.interrupt_at = ""
    assert main(arguments_for(tiny_build, out, target)) == 0
    assert device.built == list(Bundle.open(graphs).manifest.stages), "what was built before the interrupt is kept"
    bundle = Bundle.open(out)
    assert {entry.engine for entry in bundle.manifest.stages.values()} == {"tensorrt"}
    record = read_record(out / "unet.engine")
    assert record.rebuild == f"python export/build_engines.py --profile tiny --target {target} --precision fp32"
    assert json.loads((graphs / PLAN).read_text())["install"] == f"pip install 'mgcc-edge[{target}]'"
    assert bundle.manifest.target == target
    assert f"--onnx={graphs}/unet.onnx" in record.command
    told = capsys.readouterr()
    assert f"{out} gets the engines, {graphs} the ONNX bundle that they are built from" in told.out
    assert f"bundle: {out} (engines of this device); now run `mgcc verify --bundle {out}`" in told.out
    assert "on the device:" not in told.out
    assert "unet: building the engine (5 of 7)" in told.err


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("", ""),
        (
            "9.2.0",
            (
                "no engines here: TensorRT here is 9.2.0, expected 10.3 to 11.4; install one of these, "
                "on a Jetson with its JetPack"
            ),
        ),
    ],
)
def test_elsewhere_the_second_command_is_told(
    tiny_build: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    version: str, sentence: str,
) -> None:  # fmt: skip
    if version:
        fake_device(monkeypatch, version)
    out = tmp_path / "bundle"
    assert main(arguments_for(tiny_build, out)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == (
        "on the device: python -m mgcc_export.device_build --bundle bundle --out bundle-engines"
    )  # fmt: skip
    assert [line for line in lines if line.startswith("no engines here")] == ([sentence] if sentence else [])
    assert Bundle.open(out).has(PLAN) and not (tmp_path / "bundle-onnx").exists()


def test_a_folder_that_must_stay_is_refused_before_the_work(
    tiny_build: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_device(monkeypatch)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.png").touch()
    assert main(arguments_for(tiny_build, tmp_path / "photos")) == 2
    told = capsys.readouterr().err
    assert "photos exists and is no bundle" in told and "model: loading weights" not in told


def test_some_stages_are_no_bundle_for_engines(
    tiny_build: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = fake_device(monkeypatch)
    assert main([*arguments_for(tiny_build, tmp_path / "bundle"), "--stages", "refiner"]) == 0
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith("engines are built of whole bundles; leave out --stages for them")
    )
    assert device.built == []
