"""`--debug-stage`: the graph that a bundle gets, in a folder of its own, with a command that finds what is wrong."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mgcc_calibration.data.samples import CalibrationData
from mgcc_export.build import build
from mgcc_export.debug_stage import _sizes, polygraphy_command, write_debug
from mgcc_export.options import BuildOptions
from mgcc_export.precision.ladder import types_by_operator
from mgcc_export.report.table import BuildReport
from mgcc_export.stages.builder import NOT_CAPTURED
from mgcc_export.stages.stage import ExampleMaker
from mgcc_export.targets import TOLERANCES, Target, choose_recipe
from mgcc_ref.model import MgccModel
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.manifest import Tolerance
from mgcc_runtime.bundle.output_folder import OutputFolderError
from mgcc_runtime.contract import StageSpec, stage as stage_of
from tests.packages import needs

Built = tuple[BuildReport, BuildOptions]


def silent(*_: str) -> None:
    pass


def options_for(tiny_build: Built, out: Path, target: Target, precision: Precision, *names: str) -> BuildOptions:
    return dataclasses.replace(tiny_build[1], recipe=choose_recipe(target, precision), out=out, stages=names)


@dataclasses.dataclass(frozen=True)
class Captured:
    """Calibration data of one stage: its inputs at one length, `scale` times what they usually are."""

    model: MgccModel
    scale: float
    stages: tuple[str, ...] = ("vae_decoder",)

    @property
    def manifest(self) -> SimpleNamespace:
        return SimpleNamespace(stages=dict.fromkeys(self.stages, ()))

    def samples(self, name: str) -> Iterator[dict[str, NDArray[Any]]]:
        spec = stage_of(self.model.dimensions, name)
        for seed in range(4 if name in self.stages else 0):
            values = ExampleMaker(self.model, seed).inputs(spec, {"S": 6, "B": 2})
            arrays = {t.name: v.numpy() for t, v in zip(spec.inputs, values, strict=True)}
            yield {n: v * np.float32(self.scale) if v.dtype == np.float32 else v for n, v in arrays.items()}

    def check(self, spec: StageSpec) -> int:
        return 4


@pytest.mark.parametrize(
    ("precision", "scale", "operator", "kind"),
    [
        (Precision.FP16, 1e5, "Tanh", "float"),  # of values that fp16 could not hold
        (Precision.INT8, 1.0, "QuantizeLinear", "int8"),  # activations in 8 bits, which ranges are for
    ],
)
def test_captured_inputs_have_their_part(
    tiny: MgccModel, tiny_build: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    precision: Precision, scale: float, operator: str, kind: str,
) -> None:  # fmt: skip
    """lowered.onnx is the graph of a bundle that was built with the same data, and not the one without."""
    monkeypatch.setattr(CalibrationData, "open", lambda folder: Captured(tiny, scale))
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "calibration.json").write_text("{}")
    options = options_for(tiny_build, tmp_path / "b", Target.JETSON, precision, "vae_decoder")
    without = types_by_operator(write_debug(options, "vae_decoder", silent)[0] / "lowered.onnx")
    assert kind not in without.get(operator, {})
    scanned = dataclasses.replace(options, captured=tmp_path / "scan")
    folder, _ = write_debug(scanned, "vae_decoder", silent)
    lowered = types_by_operator(folder / "lowered.onnx")
    build(scanned, silent)
    assert (folder / "lowered.onnx").read_bytes() == (scanned.out / "vae_decoder.onnx").read_bytes()
    assert lowered[operator][kind] > 0
    with np.load(folder / "case-0.npz") as case, np.load(scanned.out / "golden" / "vae_decoder.npz") as golden:
        np.testing.assert_array_equal(case["in.latents"], golden["in.latents"])  # what a device is compared on


def test_a_stage_that_no_captured_request_called_has_narrow_weights_alone(
    tiny: MgccModel, tiny_build: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "calibration.json").write_text("{}")
    monkeypatch.setattr(CalibrationData, "open", lambda folder: Captured(tiny, 1.0, stages=()))
    options = options_for(tiny_build, tmp_path / "b", Target.TENSORRT, Precision.INT8, "vae_decoder")
    report = build(dataclasses.replace(options, captured=tmp_path / "scan"), silent)
    assert "int8" not in types_by_operator(options.out / "vae_decoder.onnx").get("QuantizeLinear", {})
    assert report.stages[0].lowered.remarks[-1] == NOT_CAPTURED


def test_files_of_others_are_left_alone(tiny_build: Built, tmp_path: Path) -> None:
    options = options_for(tiny_build, tmp_path / "b", Target.ORT_GPU, Precision.FP16)
    folder = tmp_path / "b-debug-refiner"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    told: list[tuple[str, ...]] = []
    with pytest.raises(OutputFolderError, match=r"b-debug-refiner holds files that --debug-stage did not write.*--out"):
        write_debug(options, "refiner", lambda *step: told.append(step))
    assert (folder / "thesis.tex").exists() and not told, "before the work"
    (folder / "thesis.tex").unlink()
    assert write_debug(options, "refiner", silent)[0] == folder
    (folder / "notes.txt").write_text("seen at block 3")
    (folder / "case-99.npz").write_text("of an earlier run")
    write_debug(options, "refiner", silent)
    assert (folder / "notes.txt").exists() and not (folder / "case-99.npz").exists()


def test_what_missed_can_be_debugged_too(tiny_build: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle never gets the graph that missed its tolerance; who wants to know why does."""
    strict = {**TOLERANCES, Precision.INT8: Tolerance(0.9999999, 1e-7)}
    monkeypatch.setattr("mgcc_export.targets.TOLERANCES", strict)
    options = options_for(tiny_build, tmp_path / "b", Target.ORT_GPU, Precision.INT8)
    folder, _ = write_debug(options, "llm", silent)
    asked, lowered = (types_by_operator(folder / name) for name in ("asked.onnx", "lowered.onnx"))
    assert asked["DequantizeLinear"]["int8"] > 0 and "DequantizeLinear" not in lowered
    assert not list(folder.glob("half.onnx*"))


def test_mean_and_largest_difference_are_held_to_the_results_size() -> None:
    outputs = [{"y": np.array([1.0, -3.0], np.float32)}, {"y": np.array([0.5, 2.5], np.float32), "z": np.zeros(2)}]
    sizes = _sizes(outputs)
    assert sizes == {"y": (1.5, 2.5), "z": (1e-6, 1e-6)}
    for target in (Target.RTX, Target.JETSON):
        command = polygraphy_command(Path("my folder"), target, (), Tolerance(0.9999, 1e-2), sizes)
        first, second = (shlex.split(part) for part in command.split(" && "))
        assert first[-5:] == ["--check-error-stat", "mean", "--atol", "y:0.015", "z:1e-08"]
        assert second[-5:] == ["--check-error-stat", "max", "--atol", "y:0.025", "z:1e-08"]
        assert first[first.index("--save-outputs") + 1] == second[second.index("--load-outputs") + 1]
    alone = polygraphy_command(Path("f"), Target.ORT_GPU, (), Tolerance(0.9999, 1e-2), sizes)
    assert "--check-error-stat" not in alone, "one runner has nothing to be compared with"


@pytest.mark.slow
def test_a_debugged_stage_can_be_run_by_polygraphy(tiny_build: Built, tmp_path: Path) -> None:
    """With ONNX Runtime in the engine's place, which needs a GPU."""
    folder, command = write_debug(
        options_for(tiny_build, tmp_path / "b", Target.RTX, Precision.FP16), "refiner", silent
    )
    assert {p.name for p in folder.iterdir()} >= {"refiner.onnx", "lowered.onnx", "case-0.npz", "data_loader.py"}
    assert not (folder / "asked.onnx").exists()  # it is what was asked for
    with np.load(folder / "case-0.npz", allow_pickle=False) as case:
        assert {"in.image_features", "out.conditioning"} <= set(case.files)
    assert command.startswith("POLYGRAPHY_USE_TENSORRT_RTX=1 polygraphy run") and "--trt-max-shapes" in command
    needs("polygraphy")
    first, second = (shlex.split(part) for part in command.split(" ", 1)[1].split(" && "))
    engine = slice(first.index("--trt"), first.index("--data-loader-script"))
    first[engine] = ["--onnxrt"]
    for words, statistic in ((first, "mean"), (second, "max")):
        script = Path(sys.executable).parent / words[0]
        done = subprocess.run([sys.executable, script, *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"Checking {statistic} error" in done.stdout
        assert "PASSED | Output: 'conditioning'" in done.stdout
