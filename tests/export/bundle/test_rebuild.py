"""The command that engines' records and reports say to build a bundle again: given back, it is the same build."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from mgcc_calibration.bundle.writer import BundleWriter
from mgcc_export import cli
from mgcc_export.bundle.rebuild import rebuild_command, records_with
from mgcc_export.device_build import command_for
from mgcc_export.options import BuildOptions
from mgcc_export.stages.cache import BuiltStage, stage_cache
from mgcc_export.targets import Target, choose_recipe
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.engines.tensorrt.record import read_record, record_path
from tests.runtime.engine_makers import write_plan
from tests.runtime.releases import TENSORRT_RTX

RTX = choose_recipe(Target.RTX, Precision.FP16)


def options_of(**changes: object) -> BuildOptions:
    return dataclasses.replace(BuildOptions("tiny", RTX, Path("out"), Path("cache")), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"profile": "paper-1.3b", "weights": "random"},
        {"recipe": choose_recipe(Target.JETSON, Precision.INT8), "weights": "folder", "captured": "scan"},
        {"recipe": choose_recipe(Target.CPU, Precision.AUTO), "stages": ("llm", "unet")},
        {"recipe": choose_recipe(Target.RTX, Precision.AUTO), "weights": "random", "stages": ("vae_decoder",)},
    ],
)
def test_the_command_asks_for_the_same_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    """Read by the command line's own parser; a folder's name may hold what a shell would take apart."""
    for name in ("folder", "scan"):
        (tmp_path / f"my {name}'s").mkdir()
    paths = {key: tmp_path / f"my {value}'s" for key, value in changes.items() if value in ("folder", "scan")}
    options, asked = options_of(**{**changes, **paths}), list[BuildOptions]()

    def taken(found: BuildOptions, progress: object) -> tuple[object, str]:
        asked.append(found)
        return SimpleNamespace(bundle="b", bytes=0, elapsed_s=0.0), ""

    monkeypatch.setattr(cli, "_built", taken)
    monkeypatch.setattr("mgcc_calibration.data.samples.CalibrationData.open", lambda folder: None)
    words = shlex.split(rebuild_command(options))
    assert words[:2] == ["python", "export/build_engines.py"]
    assert cli.main([*words[2:], "--ignore-estimate"]) == 0
    wanted = dataclasses.replace(options, recipe=dataclasses.replace(options.recipe, note=""))
    found = dataclasses.replace(asked[0], out=options.out, cache=options.cache)
    assert dataclasses.replace(found, recipe=dataclasses.replace(found.recipe, note="")) == wanted


def test_each_bundle_gets_its_own_command_from_one_engine_in_the_cache(tmp_path: Path) -> None:
    def fill(folder: Path) -> BuiltStage:
        write_plan(folder, "unet", TENSORRT_RTX[-1], rebuild="")
        for graph in folder.glob("*.onnx"):
            graph.unlink()
        return BuiltStage(folder, {}, 3, 5, 1.0, 2.0, [])

    cache = stage_cache(tmp_path / "cache")
    cache.put("unet", "0" * 64, fill)
    for options in (options_of(weights="random"), options_of(weights="random", stages=("unet",))):
        built = cache.get("unet", "0" * 64)  # its hashes are checked: no bundle writes into it
        assert built is not None
        with BundleWriter(tmp_path / "bundle") as writer:
            writer.add_files(built.folder, built.files, records_with(built, rebuild_command(options)))
            engine = writer.staging / "unet.engine"
            assert read_record(engine).rebuild == rebuild_command(options)
            assert writer.files[record_path(engine).name].sha256 == sha256_of(record_path(engine))
            assert writer.files[engine.name] == built.files[engine.name]
    assert json.loads(record_path(built.folder / "unet.engine").read_text())["rebuild"] == ""


def test_graphs_have_no_records(tmp_path: Path) -> None:
    built = stage_cache(tmp_path).put("a", "0" * 64, lambda folder: BuiltStage(folder, {}, 3, 5, 1.0, 2.0, []))
    assert records_with(built, "again") == {}


def test_the_devices_command_is_quoted() -> None:
    words = shlex.split(command_for(Path("out") / "my bundle"))
    assert words[-4:] == ["--bundle", "my bundle", "--out", "my bundle-engines"]
