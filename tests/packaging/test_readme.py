"""The README and docs/ are executed: a command in them runs here, or stands below with the reason why it does not."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mgcc_runtime.contract import stages

from .conftest import ROOT

#: The README and the pages that it leads to.
PAGES = {
    page: re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
BUNDLE = "build/story-cpu-fp32"

#: Commands that the test does not run as they stand.
NOT_RUN = {
    "make demo": "exports 135 M parameters; tests/examples runs the script that it ends with",
    f"python export/build_engines.py --profile story --target cpu --precision fp32 --out {BUNDLE}": (
        "the fixture tiny_bundle runs it with --profile tiny"
    ),
    "python export/build_engines.py --profile paper-tiny --target cpu --precision fp32 --weights random "
    "--out build/paper-tiny": "the fixture paper_tiny_bundle runs it; its weights are random without being told so",
    "python export/build_engines.py --profile story --target cpu --precision auto --out build/story-cpu-auto "
    "--report out/auto.json": "tests/export/test_cpu_build.py runs it with --profile tiny",
    "python export/build_engines.py --profile story --target rtx --precision fp16 --out build/story-rtx-fp16": (
        "135 M parameters; tests/story/test_story_engines.py builds it"
    ),
    "python export/build_engines.py --profile story --target jetson --precision int8 --out build/story-jetson-int8": (
        "the same; tests/export/test_targets_build.py builds `tiny` for this target"
    ),
    "python export/build_engines.py --profile story --target jetson --precision int8 --scan build/calibration "
    "--out build/jetson-a8": "needs that data, too; tests/calibration/candidates/test_fp16_twin.py has its own",
    f"python benchmarks/quality.py --bundle {BUNDLE}": "500 pictures; the next command runs, and draws a few",
    f"python -m mgcc_calibration build --bundle {BUNDLE} --data build/calibration --out build/story-cpu-auto": (
        "needs the data of the command before it; tests/calibration/test_build.py runs both on a smaller bundle"
    ),
    f"python -m mgcc_calibration sensitivity --bundle {BUNDLE} --data build/calibration --stage unet --out out/unet": (
        "needs that data, too; tests/calibration/test_build.py runs it"
    ),
    f"mgcc kit --bundle {BUNDLE} --python 3.10 --platform aarch64 --out build/kit": (
        "needs an index; tests/packaging/test_kit.py makes one from the wheels of set-up, and follows its README"
    ),
    f"mgcc kit --for kiosk --bundle {BUNDLE} --python 3.10 --platform aarch64 --out build/kit": (
        "the same; tests/packaging/test_kiosk_kit.py makes one, and runs its installer"
    ),
    "python benchmarks/quality.py --ceiling": "500 pictures in nine forms; tests/benchmarks runs it on a few",
}


def commands() -> list[str]:
    """Each command once, in the order of the pages."""
    lines = [line for block in blocks("bash") for line in block.splitlines() if line and not line.startswith("#")]
    return list(dict.fromkeys(lines))


def blocks(language: str) -> list[str]:
    fenced = rf"^```{language}\n(.*?)^```"
    return [block for text in PAGES.values() for block in re.findall(fenced, text, flags=re.DOTALL | re.MULTILINE)]


@pytest.fixture
def workplace(tiny_bundle: Path, paper_tiny_bundle: Path, tmp_path: Path) -> Path:
    """A folder that looks like the repository with its bundle built; what the commands write lands in it."""
    (tmp_path / "build").mkdir()
    (tmp_path / BUNDLE).symlink_to(tiny_bundle, target_is_directory=True)
    (tmp_path / "build/paper-tiny").symlink_to(paper_tiny_bundle, target_is_directory=True)
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
@pytest.mark.parametrize("code", blocks("python"))
def test_python_example(code: str, workplace: Path):
    done = run_in(workplace, sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workplace / "turn.png").stat().st_size > 0


def test_the_readme_is_a_first_reading():
    """About 7 kB: what is more belongs on a page of docs/."""
    assert (ROOT / "README.md").stat().st_size <= 7_500


def links(page: Path) -> list[tuple[str, str]]:
    """(file, anchor) of each link that is not to another site; one of both may be empty."""
    return re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", PAGES[page])


def headings(page: Path) -> set[str]:
    """The anchors that a page has."""
    titles = [line.lstrip("# ").lower() for line in PAGES[page].splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for file, anchor in links(page):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        assert not anchor or anchor in headings(target), f"{file}#{anchor}"


def test_table_of_stages_is_up_to_date():
    done = run_in(ROOT, sys.executable, "tools/stage_table.py", "--check")
    assert done.returncode == 0, "run `python tools/stage_table.py`"


def test_the_diagram_of_stages_holds_to_the_contract(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    diagram = importlib.import_module("stage_diagram")
    specs = {spec.name: spec for spec in stages(diagram.symbolic_dimensions()[0])}
    assert diagram.unknown_flows(specs) == []
    wrong = (diagram.Flow("llm", "unet", "boxes_of_chocolate"), diagram.Flow("solver", "vae_decoder", "latents"))
    assert diagram.unknown_flows(specs, wrong) == [wrong[0]]
