"""Engines built on the device: kept over interruptions, put in place in one step, by one build at a time."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest

from mgcc_calibration.bundle.writer import BundleWriter
from mgcc_export import device_build
from mgcc_export.device_build import build_on_device, main
from mgcc_export.errors import ExportError
from mgcc_runtime.bundle.folder import Bundle, sha256_of
from mgcc_runtime.bundle.output_folder import BusyError, OutputFolderError
from mgcc_runtime.contract import stages
from mgcc_runtime.engines.tensorrt.record import read_record
from mgcc_runtime.errors import BundleError
from mgcc_runtime.measure.verify import verify
from mgcc_runtime.names import PLAN
from tests.export.device_fakes import fake_device
from tests.packages import needs
from tests.runtime.tiny_bundle import DIMENSIONS

NAMES = [spec.name for spec in stages(DIMENSIONS)]


def silent(*_: str) -> None:
    pass


def failures(bundle: Path) -> dict[str, str]:
    return {f.name: f.detail for f in verify(bundle) if not f.passed}


@pytest.mark.slow
def test_the_device_builds_engines_and_goes_on_after_a_kill(planned: Path, tmp_path: Path) -> None:
    """With TensorRT-RTX in TensorRT's place: the same calls, and this machine has it."""
    needs("tensorrt_rtx")
    out, told = tmp_path / "engines", list[tuple[str, str]]()

    def stop_at_refiner(stage: str, step: str) -> None:
        if stage == "refiner":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_on_device(planned, out, stop_at_refiner, "tensorrt_rtx")
    with pytest.raises(BundleError, match="is not a folder"):
        Bundle.open(out)
    build_on_device(planned, out, lambda stage, step: told.append((stage, step)), "tensorrt_rtx")
    assert [stage for stage, step in told if step == "kept from an earlier build"] == ["vision_encoder", "llm"]
    commands = [step for _, step in told if step.startswith(f"equivalent: tensorrt_rtx --onnx={planned}/")]
    assert len(commands) == len(NAMES) and not any("#" in command for command in commands)
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


def test_a_kill_at_the_end_loses_no_engine(planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the last of the files is hashed for the manifest."""
    device, arguments = fake_device(monkeypatch), ["--bundle", str(planned), "--out", str(tmp_path / "out")]

    def killed_at_the_last(path: Path) -> str:
        if path.name == f"{NAMES[-1]}.engine.json":
            raise KeyboardInterrupt
        return sha256_of(path)

    with monkeypatch.context() as patch:
        patch.setattr(device_build, "sha256_of", killed_at_the_last)
        with contextlib.suppress(KeyboardInterrupt):
            assert main(arguments) == 130
    assert main(arguments) == 0
    assert device.built == NAMES
    Bundle.open(tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*"))
    assert {path.stat().st_nlink for path in (tmp_path / "out").rglob("*") if path.is_file()} == {1}


def test_a_kill_before_the_bundle_is_in_its_place_loses_no_engine(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, out = fake_device(monkeypatch), tmp_path / "out"
    rename = Path.rename

    def killed_before(path: Path, target: Path) -> Path:
        if Path(target) == out:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed_before)
        assert main(["--bundle", str(planned), "--out", str(out)]) == 130
    assert main(["--bundle", str(planned), "--out", str(out)]) == 0
    assert device.built == NAMES
    Bundle.open(out)
    assert {p.name for p in tmp_path.iterdir()} == {"out", ".out.lock"} and not list(out.glob(".*"))


def test_the_records_command_builds_the_bundle_again(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, out = fake_device(monkeypatch), tmp_path / "my engines"
    assert main(["--bundle", str(planned), "--out", str(out)]) == 0
    record = read_record(out / "unet.engine")
    words = shlex.split(record.rebuild)
    assert words[:3] == ["python", "-m", "mgcc_export.device_build"]
    assert main(words[3:]) == 0
    assert device.built == [*NAMES, *NAMES]
    assert Bundle.open(out).manifest.built_with["tensorrt"] == "10.7.0"
    assert record.command.startswith(f"trtexec --onnx={planned}/unet.onnx --saveEngine=unet.engine")


def test_an_earlier_bundle_stays_until_the_new_one_is_whole(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device, out = fake_device(monkeypatch), tmp_path / "out"
    arguments = ["--bundle", str(planned), "--out", str(out)]
    assert main(arguments) == 0
    device.interrupt_at = "unet"
    capsys.readouterr()
    assert main(arguments) == 130
    (line,) = [text for text in capsys.readouterr().err.splitlines() if not text.startswith("[")]
    assert line == "error: interrupted; the engines already built are kept, run the same command to go on"
    Bundle.open(out)
    (tmp_path / "out").rename(tmp_path / ".out.old")  # killed between the two renames
    device.interrupt_at = "vision_encoder"
    assert main(arguments) == 0, "its engine is there already"
    Bundle.open(out)
    assert not (tmp_path / ".out.old").exists()


def test_two_builds_into_one_folder(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of engines both, or one of them the exporter's."""
    device, out = fake_device(monkeypatch), tmp_path / "out"
    arguments = ["--bundle", str(planned), "--out", str(out)]
    codes = []
    run = device.run

    def another(job):
        if not codes:
            codes.append(main(arguments))
            with pytest.raises(BusyError):
                BundleWriter(out).__enter__()
        return run(job)

    monkeypatch.setattr(device_build, "run_engine_job", another)
    assert main(arguments) == 0
    assert codes == [1]
    assert f"error: another build writes into {out} now; wait for it to end" in capsys.readouterr().err
    with BundleWriter(out):
        assert main(arguments) == 1


def test_needs_are_told_before_and_time_while_it_builds(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = fake_device(monkeypatch)
    monkeypatch.setattr("mgcc_export.progress._TICK_S", 0.05)
    run = device.run

    def slow(job):
        time.sleep(0.3 if job.stage == "llm" else 0)
        return run(job)

    monkeypatch.setattr(device_build, "run_engine_job", slow)
    assert main(["--bundle", str(planned), "--out", str(tmp_path / "out")]) == 0
    lines = [line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines[0].startswith("estimate: about 2") and "available now" in lines[0] and "at least" in lines[0]
    assert lines[1] == "builder: workspace the library's default, kernel times not kept"
    assert lines[2] == "vision_encoder: building the engine (1 of 7)"
    assert "llm: building the engine (2 of 7) (0 s so far)" in lines


def test_a_device_without_tensorrt_says_how_to_get_it(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    ways = r"the package tensorrt cannot be imported.*JetPack.*mgcc-edge\[tensorrt\].*NVIDIA's package index"
    with pytest.raises(ExportError, match=ways):
        build_on_device(planned, tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_another_version_is_refused(planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_device(monkeypatch, "9.3.1")
    with pytest.raises(ExportError, match=r"TensorRT here is 9\.3\.1, expected 10\.3 to 11\.4"):
        build_on_device(planned, tmp_path / "out", silent)


def test_a_bundle_without_a_plan_and_a_taken_folder_are_refused(
    planned: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fake_device(monkeypatch)
    assert main(["--bundle", str(tiny_bundle), "--out", str(tmp_path / "out")]) == 2
    assert f"has no {PLAN}" in capsys.readouterr().err
    with pytest.raises(OutputFolderError, match="is the bundle that engines are built from"):
        build_on_device(planned, planned, silent)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.png").touch()
    with pytest.raises(OutputFolderError, match="exists and is no bundle"):
        build_on_device(planned, tmp_path / "photos", silent)
    assert (tmp_path / "photos" / "holiday.png").exists()


def test_the_plan_has_one_command_all_shapes_and_what_it_takes(planned: Path) -> None:
    plan = json.loads((planned / PLAN).read_text())
    assert plan["command"] == "python -m mgcc_export.device_build --bundle DIR --out DIR-engines"
    assert set(plan["stages"]) == set(NAMES)
    assert plan["stages"]["llm"]["equivalent"].startswith("trtexec --onnx=llm.onnx --saveEngine=llm.engine")
    assert "#" not in plan["stages"]["llm"]["equivalent"], "the bundle with the plan has the graph"
    assert len(plan["stages"]["llm"]["profiles"]) == 2
    assert plan["stages"]["llm"]["estimate"]["memory_bytes"] > 200 * 2**20
    assert plan["stages"]["llm"]["estimate"]["seconds"] > 0
