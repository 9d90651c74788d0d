"""The command line: what is refused, in one sentence and with which exit code, and what is printed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mgcc_calibration.bundle.writer import BundleWriter
from mgcc_export.cli import PROFILES, main
from mgcc_export.predict.estimate import Estimate, estimate_build
from mgcc_export.report import table
from mgcc_export.report.table import shortages
from mgcc_export.targets import Target, choose_recipe
from mgcc_ref.config import PROFILE_NAMES, get_profile
from mgcc_ref.precision import Precision

LAUNCHER = Path(__file__).resolve().parents[2] / "export" / "build_engines.py"


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a refused command, which must exit with 2."""
    assert main(arguments) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if not text.startswith(("starting", "["))]
    return line


@pytest.mark.parametrize("target", list(Target))
def test_every_target_is_built_in_every_precision(target: Target) -> None:
    """What is asked for is what is built; only `auto` is a choice of ours."""
    for precision in (Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT4):
        recipe = choose_recipe(target, precision)
        assert (recipe.target, recipe.precision) == (target, precision)
        assert estimate_build(get_profile("tiny"), (), recipe).bundle_bytes > 0
    auto = choose_recipe(target, Precision.AUTO)
    assert auto.precision is (Precision.AUTO if target is Target.CPU else Precision.FP16)
    assert auto.calibrated is (target is Target.CPU)


def test_a_weights_folder_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = _refusal(capsys, "--profile", "tiny", "--weights", str(tmp_path / "absent"))
    assert "is no folder; give a folder of *.safetensors, or the word random" in line


def test_missing_weights_are_named_with_where_to_get_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Before the language model is read, which takes long."""
    line = _refusal(capsys, "--weights", str(tmp_path), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "c"))
    assert "clip.safetensors are missing" in line
    assert "python -m mgcc_ref.train" in line


def test_every_profile_of_the_reference_can_be_asked_for() -> None:
    assert PROFILES == PROFILE_NAMES


def test_a_missing_student_is_named_with_the_step_that_makes_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its teacher's weights are all there, and its own UNet, which lies in a folder beside them, is not."""
    teacher = tmp_path / "story"
    teacher.mkdir()
    for name in ("clip", "vae", "alignment", "grounder", "unet"):
        (teacher / f"{name}.safetensors").touch()
    arguments = ("--profile", "story-fast", "--weights", str(teacher), "--out", str(tmp_path / "out"))
    line = _refusal(capsys, *arguments, "--cache", str(tmp_path / "c"))
    assert f"weights {tmp_path / 'story-fast' / 'unet.safetensors'} are missing" in line
    assert line.endswith("`python -m mgcc_ref.train --step student`")


def test_calibration_data_that_is_none_is_refused_before_the_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = _refusal(capsys, "--profile", "tiny", "--precision", "int8", "--scan", str(tmp_path))
    assert "holds no calibration data, it has no calibration.json" in line


def test_debug_stage_is_for_engines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = _refusal(capsys, "--profile", "tiny", "--precision", "auto", "--debug-stage", "unet", "--out", str(tmp_path))
    assert "--debug-stage compares graphs for GPU engines, and target cpu in auto has none" in line


def test_an_unknown_stage_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = _refusal(capsys, "--profile", "tiny", "--stages", "unett", "--out", str(tmp_path / "out"))
    assert "has no stage unett; choose from vision_encoder, llm" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--target", "phone"], ["--profile", "huge"], ["--precision", "int2"], ["--x"]])
def test_arguments_that_do_not_exist_exit_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err


def test_help_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for option in ("--profile", "--target", "--precision", "--stages", "--weights", "--out", "--report", "--estimate"):
        assert option in out


def test_two_builds_into_one_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "out"):
        assert main(["--profile", "tiny", "--out", str(tmp_path / "out")]) == 1
    assert "another build writes into" in capsys.readouterr().err


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_estimate_needs_no_weights(capsys: pytest.CaptureFixture[str], profile: str, precision: str) -> None:
    assert main(["--profile", profile, "--precision", precision, "--estimate"]) == 0
    out = capsys.readouterr().out
    assert "vae_decoder" in out
    assert "MiB on disk" in out


HUGE = Estimate({"llm": 1}, bundle_bytes=10**18, peak_memory_bytes=10**18, seconds=1.0, device_memory_bytes=1)


def test_too_small_a_machine_is_said_before_the_work(tmp_path: Path) -> None:
    disk, memory = shortages(HUGE, tmp_path / "not" / "yet", tmp_path)
    assert f"{tmp_path} has" in disk
    assert "in all, the build may need" in memory
    assert shortages(Estimate({}, 1, 1, 1.0, 1), tmp_path, tmp_path) == []


def test_the_disk_of_the_bundle_counts_as_well_as_the_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache's is large enough; where both are on one disk, they need the sum."""
    out, cache = tmp_path / "small" / "bundle", tmp_path / "large"
    for folder in (out.parent, cache):
        folder.mkdir()
    usage = SimpleNamespace(free=50 * 2**20)
    monkeypatch.setattr(
        "mgcc_export.report.table.shutil.disk_usage",
        lambda p: usage if p == out.parent else SimpleNamespace(free=10**12),
    )
    need = Estimate({}, 60 * 2**20, 1, 1.0, 1, 30 * 2**20)
    (line,) = shortages(need, out, cache)
    assert line.startswith(f"{out.parent} has 50 MiB free, the build may need 90 there; free some")
    stat = Path.stat
    disks = SimpleNamespace(st_dev=-1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda p, **_: p in (out.parent, cache))
        patch.setattr(Path, "stat", lambda p, **keys: disks if p == cache else stat(p, **keys))
        (line,) = shortages(need, out, cache)
    assert line.endswith("the build may need 60 there; free some, or give another place with --out")


def test_memory_that_others_hold_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:        9000000 kB\nMemFree:  1 kB\nMemAvailable:    2097152 kB\n")
    memory = table._memory(tmp_path / "absent", told)
    assert memory.available == 2 * 2**30 < memory.total
    monkeypatch.setattr("mgcc_export.report.table._memory", lambda: memory)
    (line,) = shortages(Estimate({}, 1, 3 * 2**30, 1.0, 1), tmp_path, tmp_path)
    assert f"has 2048 MiB of memory available of {memory.total / 2**20:.0f} in all, the build may need 3072" in line
    assert "; close other programs, use a larger machine, a lower --precision or fewer --stages" in line


def test_a_container_has_less_memory_than_its_machine(tmp_path: Path) -> None:
    limit, absent = tmp_path / "memory.max", tmp_path / "absent"
    limit.write_text(f"{3 * 2**20}\n")
    assert table._memory(limit) == (3 * 2**20, 3 * 2**20)
    limit.write_text("max\n")
    assert table._memory(limit, absent) == table._memory(absent, absent)
    assert table._memory(limit).total > 3 * 2**20


def test_an_estimate_says_what_does_not_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mgcc_export.report.table._memory", lambda: table._Memory(2**30, 2**29))
    assert main(["--profile", "story", "--estimate"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("does not fit: this machine has 512 MiB of memory available of 1024 in all, the build may")
    assert line.endswith("; use a larger machine, a lower --precision or fewer --stages")


@pytest.mark.slow
def test_a_smaller_language_model_is_a_way_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it needs less, which it does not where another stage is the largest."""
    monkeypatch.setattr("mgcc_export.report.table._memory", lambda: table._Memory(2**30, 2**30))
    lines = []
    for profile, stages in (("paper", "llm"), ("paper-2.7b", "llm"), ("paper-1.3b", "llm"), ("paper", "vae_decoder")):
        arguments = ["--target", "rtx", "--precision", "fp16", "--stages", stages, "--estimate"]
        assert main(["--profile", profile, *arguments]) == 0
        lines.append(capsys.readouterr().out.splitlines()[-1])
    assert re.search(r"or the smaller language model of --profile paper-1.3b \(\d+ MiB\)$", lines[0])
    assert ", the smaller language model of --profile paper-2.7b (" in lines[0]
    assert "paper-1.3b" in lines[1] and "paper-2.7b" not in lines[1]
    assert "language model" not in lines[2] and "language model" not in lines[3]


def test_the_report_is_written(capsys: pytest.CaptureFixture[str], tiny_build, tmp_path: Path) -> None:
    arguments = ["--profile", "tiny", "--precision", "fp32", "--cache", str(tiny_build[1].cache)]
    path = tmp_path / "report.json"
    assert main([*arguments, "--out", str(tmp_path / "bundle"), "--report", str(path)]) == 0
    captured = capsys.readouterr()
    assert f"bundle: {tmp_path / 'bundle'}" in captured.out
    assert "golden: running one whole request" in captured.err
    assert json.loads(path.read_text())["stages"][0]["stage"] == "vision_encoder"


@pytest.mark.slow
def test_the_launcher_works_from_any_directory_of_a_bare_clone(tmp_path: Path) -> None:
    """Nothing of ours is installed here: -I and a copy elsewhere rule out the editable install."""
    clone = tmp_path / "clone"
    for folder in ("export", "calibration", "mgcc_ref", "runtime"):
        shutil.copytree(
            LAUNCHER.parents[1] / folder, clone / folder, ignore=shutil.ignore_patterns("weights", "__pycache__", ".*")
        )
    launcher = str(clone / "export" / "build_engines.py")
    script = (
        "import runpy, sys\n"
        f"ours = [p for p in sys.path if p.startswith({str(LAUNCHER.parents[1])!r}) and 'site-packages' not in p]\n"
        "sys.path[:] = [p for p in sys.path if p not in ours]\n"
        "sys.argv = ['build_engines.py', '--profile', 'tiny', '--estimate']\n"
        f"runpy.run_path({launcher!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "MiB on disk" in done.stdout
