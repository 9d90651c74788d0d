"""Every command of the project runs through `commands.console`: one way with streams, errors and exit codes."""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED

ROOT = Path(__file__).parents[2]
_PAPER = ["--annotations", "none", "--pictures", "none", "--out", "out", "--reference"]
#: Module -> what stands before its sentences, and options that are refused.
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "mgcc_runtime.cli": ("mgcc", ["bench", "--bundle", "none", "--threads", "-5"]),
    "mgcc_kiosk.on_ray.cli": ("python -m mgcc_kiosk.on_ray", ["--bundle", "none", "--replicas", "0"]),
    "mgcc_export.cli": ("error", ["--profile", "tiny", "--weights", "none"]),
    "mgcc_export.device_build": ("error", ["--bundle", "none", "--out", "out"]),
    "mgcc_calibration.cli": ("error", ["capture", "--bundle", "none", "--out", "out", "--threads", "-5"]),
    "mgcc_benchmarks.storybench.quality_cli": ("quality.py", ["--bundle", "none", "--items", "0"]),
    "mgcc_benchmarks.serving.cli": ("serve.py", ["--bundle", "none", "--requests", "0"]),
    "mgcc_benchmarks.latency.cli": ("latency.py", ["--bundle", "none", "--runs", "0"]),
    "mgcc_benchmarks.storybench.decisions_cli": ("decisions.py", ["--bundle", "none", "--out", "out.json"]),
    "mgcc_benchmarks.storybench.notes_cli": ("notes.py", ["--wrong"]),
    "mgcc_benchmarks.planner.cli": ("planner.py", ["--out", "x.txt"]),
    "mgcc_benchmarks.storybench.grounders_cli": ("grounders.py", ["--out", "x.txt"]),
    "mgcc_benchmarks.paper.vist_cli": ("vist.py", [*_PAPER, "--shard", "2/1"]),
    "mgcc_benchmarks.paper.visdial_cli": ("visdial.py", [*_PAPER, "--switch", "text=text"]),
    "mgcc_benchmarks.ablation.cli": ("ablation.py", ["--out", "x.txt"]),
    "mgcc_benchmarks.peers.cli": ("peers.py", ["--bundle", "none", "--threads", "-5"]),
    "mgcc_ref.story.__main__": ("python -m mgcc_ref.story", []),
    "mgcc_ref.train.__main__": ("python -m mgcc_ref.train", ["--profile", "tiny", "--step", "unet", "--weights", "no"]),
    "mgcc_ref.train.recipe.__main__": ("python -m mgcc_ref.train.recipe", []),
    "examples.demo.run_demo": ("error", ["--bundle", "none"]),
    "examples.published_scale.draw_once": ("draw_once.py", ["--bundle", "none"]),
    "tools.copy_page_art": ("copy_page_art.py", ["--nothing"]),
    "tools.convert_gill": ("convert_gill.py", ["--checkpoint", "none", "--out", "out"]),
    "tools.code_size": ("code_size.py", ["--nothing"]),
    "tools.convert_checkpoint": ("convert_checkpoint.py", ["--source", "none", "--out", "out"]),
    "tools.derive_profile": ("derive_profile.py", ["--weights", "none", "--like", "tiny"]),
    "tools.fetch_wheelhouses": ("fetch_wheelhouses.py", ["--nothing"]),
    "tools.average_weights": ("average_weights.py", ["--first", "none", "--second", "none", "--out", "none"]),
    "tools.grow_unet": ("grow_unet.py", ["--weights", "none", "--painter", "none"]),
    "tools.make_demo_inputs": ("make_demo_inputs.py", ["--nothing"]),
    "tools.oldest_python": ("oldest_python.py", ["--nothing"]),
    "tools.publish_tiny": ("publish_tiny.py", ["--out", "out", "--count", "1"]),
    "tools.fit_notes": ("fit_notes.py", ["--nothing"]),
    "tools.read_cuda_api": ("read_cuda_api.py", ["--nothing"]),
    "tools.read_tensorrt_api": ("read_tensorrt_api.py", ["--release", "0.0"]),
    "tools.stage_diagram": ("stage_diagram.py", ["--nothing"]),
    "tools.stage_table": ("stage_table.py", ["--nothing"]),
}


def run(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, **streams: Any) -> int:
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    code: int = importlib.import_module(module).main(arguments)
    monkeypatch.undo()
    return code


def without_reader() -> Any:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="utf-8")


def full() -> Any:
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", encoding="utf-8")


#: Where a module's name starts, and the folder of it.
FOLDERS = {ROOT / name: ROOT / name for name in ("runtime", "export", "calibration", "benchmarks")} | {
    ROOT / name: ROOT for name in ("mgcc_ref", "examples", "tools")
}
#: Modules with options that are no command: they hold those of `mgcc` or bring the mechanism, or are started by us.
NO_COMMANDS = {
    "mgcc_runtime.commands.draw", "mgcc_runtime.commands.reports", "mgcc_runtime.kit.cli", "mgcc_runtime.options",
    "mgcc_runtime.commands.serve", "mgcc_kiosk.cli", "mgcc_kiosk.options", "mgcc_kiosk.page_watch",
    "mgcc_kiosk.on_ray.options",
    "mgcc_export.tensorrt.settings", "mgcc_ref.config", "mgcc_ref.published.pickles",
    "mgcc_ref.train.published.command", "mgcc_ref.train.data.source",
    "mgcc_runtime.commands.console", "mgcc_runtime.commands.launch",
    "mgcc_runtime.measure.cold_start", "mgcc_export.tensorrt.builder", "mgcc_benchmarks.peers.worker",
    "mgcc_benchmarks.paper.options", "mgcc_benchmarks.paper.run", "mgcc_benchmarks.storybench.looks",
}  # fmt: skip


def test_none_is_left_out() -> None:
    """Every module that reads arguments, or is started by its name."""
    found = {
        path.relative_to(start).with_suffix("").as_posix().replace("/", "."): text
        for folder, start in FOLDERS.items()
        for path in folder.rglob("*.py")
        if re.search(
            r"\bargparse\b|^if __name__ ==|arguments: Sequence\[str\] \| None", text := path.read_text("utf-8"), re.M
        )
    }
    launchers = {name for name, text in found.items() if re.search(r"^    launch\(", text, re.M)}
    assert found.keys() - launchers - NO_COMMANDS == COMMANDS.keys()
    assert found.keys() >= NO_COMMANDS, "a name that is gone"
    assert all("\n@command(" in found[name] for name in COMMANDS)


@pytest.mark.parametrize("module", COMMANDS)
def test_help(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for, on each kind of standard output."""
    heard = io.StringIO()
    assert run(module, ["--help"], monkeypatch, stdout=heard) == EXIT_DONE
    assert "usage" in heard.getvalue()
    assert run(module, ["--help"], monkeypatch, stdout=without_reader()) == EXIT_DONE
    for stdout in (None, full()):
        said = io.StringIO()
        assert run(module, ["--help"], monkeypatch, stdout=stdout, stderr=said) == EXIT_FAILED
        assert "standard output cannot be written to" in said.getvalue() and "Traceback" not in said.getvalue()


@pytest.mark.parametrize("module", COMMANDS)
def test_bad_input(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence and 2, or 2 alone where it cannot be said."""
    name, refused = COMMANDS[module]
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    assert run(module, refused, monkeypatch, stderr=said) == EXIT_BAD_INPUT
    monkeypatch.chdir(tmp_path)
    last = said.getvalue().splitlines()[-1]
    assert last.startswith(f"{name}: ") and "Traceback" not in said.getvalue()
    for stderr in (None, full(), without_reader()):
        assert run(module, refused, monkeypatch, stderr=stderr) == EXIT_BAD_INPUT
        monkeypatch.chdir(tmp_path)
