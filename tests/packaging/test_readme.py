"""The README is executed: every command in it runs here, or stands below with the reason why it does not."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

README = re.sub(r"<!--.*?-->", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
BUNDLE = "build/story-cpu-fp32"

#: Commands that the test does not run as they stand.
NOT_RUN = {
    "make demo": "exports 135 M parameters; CI's own time would double. The script it ends with runs below, on `tiny`",
    "make test": "runs this test",
    f"python export/build_engines.py --profile story --target cpu --precision fp32 --out {BUNDLE}": (
        "the fixture tiny_bundle runs it with --profile tiny"
    ),
    "python export/build_engines.py --profile story --target cpu --precision auto --out build/story-cpu-auto "
    "--report out/auto.json": "tests/export/test_cpu_build.py runs it with --profile tiny",
    "python export/build_engines.py --profile story --target rtx --precision fp16 --out build/story-rtx-fp16": (
        "135 M parameters; tests/story/test_story_engines.py builds it"
    ),
    "python export/build_engines.py --profile story --target jetson --precision int8 --out build/story-jetson-int8": (
        "the same; tests/export/test_targets_build.py builds `tiny` for this target"
    ),
    f"python benchmarks/quality.py --bundle {BUNDLE}": "500 pictures; the next command runs, and draws a few",
    f"python -m mgcc_calibration build --bundle {BUNDLE} --data build/calibration --out build/story-cpu-auto": (
        "needs the data of the command before it; tests/calibration/test_build.py runs both on a smaller bundle"
    ),
    f"python -m mgcc_calibration sensitivity --bundle {BUNDLE} --data build/calibration --stage unet --out out/unet": (
        "needs that data, too; tests/calibration/test_build.py runs it"
    ),
    "python benchmarks/quality.py --ceiling": "500 pictures in nine forms; tests/benchmarks runs it on a few",
}


def commands() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def python_examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A folder that looks like the repository with its bundle built; what the commands write lands in it."""
    (tmp_path / "build").mkdir()
    (tmp_path / BUNDLE).symlink_to(tiny_bundle, target_is_directory=True)
    for name in ("benchmarks", "calibration", "examples", "export", "mgcc_ref", "runtime", "docs"):
        (tmp_path / name).symlink_to(ROOT / name, target_is_directory=True)
    return tmp_path


def run_in(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )


def test_exceptions_are_commands_of_the_readme():
    assert set(NOT_RUN) <= set(commands())


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands() if c not in NOT_RUN])
def test_command(command: str, workplace: Path):
    done = run_in(workplace, *shlex.split(command))
    assert done.returncode == 0, done.stdout + done.stderr
    for target in re.findall(r"--out (\S+)", command):
        assert (workplace / target).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("code", python_examples())
def test_python_example(code: str, workplace: Path):
    done = run_in(workplace, sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workplace / "turn.png").stat().st_size > 0


def test_relative_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_anchors_are_headings():
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in README.splitlines()
        if line.startswith("#")
    }
    assert [anchor for anchor in re.findall(r"\]\(#([^)]+)\)", README) if anchor not in headings] == []


def test_table_of_stages_is_up_to_date():
    done = run_in(ROOT, sys.executable, "tools/stage_table.py", "--check")
    assert done.returncode == 0, "run `python tools/stage_table.py`"
