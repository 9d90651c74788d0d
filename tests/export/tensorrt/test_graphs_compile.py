"""Graphs of `jetson` and `tensorrt` parsed and built by TensorRT-RTX's builder: the nearest relative that is here.

Whether TensorRT itself takes them is for tests/gpu and for `release_check.py`, which holds them against its oldest
release. What both get is the same file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mgcc_calibration.data.capture import CaptureOptions, capture
from mgcc_calibration.data.requests import storyworld_requests
from mgcc_export import cli
from mgcc_export.precision.fp16 import write_half
from mgcc_export.precision.weight_widths import Bits, write_quantised
from mgcc_export.tensorrt.builder import EngineJob, profiles_of
from mgcc_export.tensorrt.process import run_engine_job
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import stages
from mgcc_runtime.engines.tensorrt.record import record_path
from tests.exported import exported_bundle, shared_folder
from tests.packages import needs

needs("tensorrt_rtx")

PROFILES = ("tiny", "paper-tiny")


def compiled(bundle: Bundle, name: str, graph: Path, engine: Path) -> int:
    """Bytes of the engine; a refusal is an ExportError with the compiler's words."""
    spec = next(s for s in stages(bundle.manifest.dimensions) if s.name == name)
    profiles = profiles_of(spec, bundle.manifest.dimensions.axes)
    job = EngineJob("tensorrt_rtx", name, str(graph.resolve()), str(engine), str(record_path(engine)), profiles, "")
    return run_engine_job(job).bytes


@pytest.mark.parametrize("bits", Bits)
def test_the_grounder_compiles_with_narrow_weights(bits: Bits, tiny_bundle: Path, tmp_path: Path) -> None:
    """It reads its attention's matrices in every round; in 8 bits, TensorRT-RTX 1.7 used to fail on that."""
    bundle, half, narrow = Bundle.open(tiny_bundle), tmp_path / "half.onnx", tmp_path / "narrow.onnx"
    write_half(bundle.file(bundle.manifest.stages["grounder"].file), half)
    assert write_quantised(half, narrow, bits).eight
    assert compiled(bundle, "grounder", narrow, tmp_path / "grounder.engine") > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4", "int8 activations"])
@pytest.mark.parametrize("profile", PROFILES)
def test_every_graph_compiles(
    profile: str, precision: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    width, *activations = precision.split()
    cache, out = shared_folder(tmp_path_factory) / "export-cache", tmp_path / "bundle"
    words = ["--profile", profile, "--target", "tensorrt", "--precision", width, "--cache", str(cache)]
    if activations:
        fp32 = Bundle.open(exported_bundle(profile, tmp_path_factory))
        data = capture(fp32, storyworld_requests(2, 3), CaptureOptions(seed=3, words=4), tmp_path / "data")
        words += ["--scan", str(data.root)]
    assert cli.main([*words, "--out", str(out), "--ignore-estimate"]) == 0
    built = Bundle.open(out)
    for name, entry in built.manifest.stages.items():
        assert compiled(built, name, built.file(entry.file), tmp_path / f"{name}.engine")
