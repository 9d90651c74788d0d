"""A bundle's whole way on a device, for each release of TensorRT: engines are built there, verified and drawn with.

By the releases' own interfaces (tests/runtime/host_tensorrt.py), in this process: a call that a release lacks fails.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mgcc_export import device_build
from mgcc_export.device_build import build_on_device
from mgcc_export.errors import EngineRefusedError, ExportError
from mgcc_export.tensorrt.builder import EngineJob, build_engine, profiles_of
from mgcc_runtime import Pipeline
from mgcc_runtime.bundle.folder import Bundle, write_manifest
from mgcc_runtime.commands.info import info_json, info_lines
from mgcc_runtime.contract import stage
from mgcc_runtime.engines import DecodeGraphs
from mgcc_runtime.engines.tensorrt.features import Feature, features
from mgcc_runtime.engines.tensorrt.record import read_record, record_path
from mgcc_runtime.measure.verify import verify
from mgcc_runtime.names import TargetName
from tests.runtime.engine_makers import write_half_onnx
from tests.runtime.host_builder import HostBuilder, HostBuilderConfig
from tests.runtime.host_gpu import HostDriver
from tests.runtime.host_tensorrt import host_gpu_with
from tests.runtime.releases import RELEASES, TENSORRT, TENSORRT_RTX, Release
from tests.runtime.tiny_bundle import DIMENSIONS

REQUEST = ["A cat under a tree.", "A dog."]


@pytest.fixture(params=RELEASES, ids=str)
def release(request: pytest.FixtureRequest) -> Release:
    found: Release = request.param
    return found


@pytest.fixture
def device(release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HostDriver:
    """This machine as a device with the release; engines are built in this process, which has its library."""
    monkeypatch.setattr(device_build, "run_engine_job", build_engine)
    with host_gpu_with(release, monkeypatch, tmp_path) as driver:
        yield driver


def job_of(folder: Path, name: str, release: Release) -> EngineJob:
    engine = folder / f"{name}.engine"
    graph, profiles = write_half_onnx(folder, name), profiles_of(stage(DIMENSIONS, name), DIMENSIONS.axes)
    return EngineJob(release.library, name, str(graph), str(engine), str(record_path(engine)), profiles, "again")


def test_engines_are_built_verified_and_drawn_with(
    device: HostDriver, release: Release, planned: Path, tmp_path: Path
) -> None:
    out = build_on_device(planned, tmp_path / "engines", lambda stage, step: None, release.library)
    assert [f for f in verify(out) if not f.passed] == []
    with Pipeline.load(out) as ours, Pipeline.load(planned, threads=1) as theirs:
        assert set(ours.stages.sessions["unet"].providers) == {"TensorRT" + "-RTX" * (release in TENSORRT_RTX)}
        found, expected = (p.generate(REQUEST, seed=1, words=6, steps=4) for p in (ours, theirs))
        assert found.text == expected.text and len(found.boxes) == len(expected.boxes)
        apart = np.abs(np.asarray(found.image, np.int16) - np.asarray(expected.image, np.int16))
        assert apart.max() <= 1
        assert found.timings["unet"] > 0 and "solver" not in found.timings  # the UNet's wait is the UNet's time
        assert device.launches > 0 and ours.stages.sessions["unet"].queues
        again = ours.generate(REQUEST, seed=1, words=6, steps=4)
        np.testing.assert_array_equal(np.asarray(again.image), np.asarray(found.image))
    assert not device.blocks and not device.pinned


@pytest.mark.parametrize("release", TENSORRT, ids=str, indirect=True)
def test_engines_of_another_gpu_of_the_kind_run_and_say_so(
    device: HostDriver, release: Release, planned: Path, tmp_path: Path
) -> None:
    """Built on an AGX Orin, copied to an Orin Nano."""
    device.multiprocessors = 16
    out = build_on_device(planned, tmp_path / "engines", lambda stage, step: None)
    write_manifest(out, replace(Bundle.open(out).manifest, target=TargetName.JETSON))
    assert info_json(Bundle.open(out))["engine_remark"] == ""
    device.multiprocessors = 8
    remark = "engines were built on a GPU with 16 multiprocessors"
    assert info_json(Bundle.open(out))["engine_remark"].startswith(remark)
    assert [line for line in info_lines(Bundle.open(out)) if f"note: {remark}" in line]
    (found,) = [f for f in verify(out) if f.name == "device"]
    assert found.passed and remark in found.detail


@pytest.mark.parametrize("release", TENSORRT_RTX, ids=str, indirect=True)
def test_whether_steps_are_captured_can_be_chosen(
    device: HostDriver, release: Release, planned: Path, tmp_path: Path
) -> None:
    out, launches = build_on_device(planned, tmp_path / "engines", lambda stage, step: None, release.library), {}
    for choice in (DecodeGraphs.NEVER, DecodeGraphs.ALWAYS):
        with Pipeline.load(out, decode_graphs=choice) as pipeline:
            for _ in range(12):
                pipeline.generate(REQUEST, words=6, steps=1)
            launches[choice] = len(pipeline.stages.sessions["llm"]._engine._steps.graphs)  # type: ignore[attr-defined]
    assert launches[DecodeGraphs.NEVER] == 0 < launches[DecodeGraphs.ALWAYS]


def test_a_record_says_what_was_built(device: HostDriver, release: Release, tmp_path: Path) -> None:
    job = job_of(tmp_path, "llm", release)
    build_engine(job)
    record = read_record(Path(job.engine))
    assert (record.library, record.version) == (release.library, release.version)
    assert record.compute_capability == ("8.0" if release in TENSORRT_RTX else "8.9")
    kinds = {t.name: t.dtype for t in (*record.inputs, *record.outputs)}
    assert kinds["inputs_embeds"] == "float" and kinds["present.0.key"] == "half"
    assert [p.shapes["inputs_embeds"][2] for p in record.profiles] == [
        (1, DIMENSIONS.axes["S"].maximum, DIMENSIONS.hidden), (1, 1, DIMENSIONS.hidden),
    ]  # fmt: skip


def test_what_the_builder_is_told(
    device: HostDriver, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No TF32 in any release; memory of ours alone where the release can be told so."""
    made: list[HostBuilderConfig] = []
    create = HostBuilder.create_builder_config
    monkeypatch.setattr(
        HostBuilder,
        "create_builder_config",
        lambda self: made.append(create(self)) or made[-1],  # type: ignore[func-returns-value]
    )
    build_engine(job_of(tmp_path, "grounder", release))
    flags = release.classes["BuilderFlag"]["enumeration"]
    (config,) = made
    assert not config.get_flag(flags["TF32"]) and len(config.profiles) == 1
    told = Feature.USER_ALLOCATION in features(release.library, release.version)
    assert told is ("REQUIRE_USER_ALLOCATION" in flags)
    assert not told or config.get_flag(flags["REQUIRE_USER_ALLOCATION"])


def test_refusals_are_told_in_a_sentence(device: HostDriver, release: Release, tmp_path: Path) -> None:
    job = job_of(tmp_path, "grounder", release)
    with pytest.raises(EngineRefusedError, match=r"stage grounder: .* cannot build an engine \(no message\)"):
        build_engine(replace(job, profiles=()))
    Path(job.onnx).write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"stage grounder: .* cannot read .*grounder-half\.onnx"):
        build_engine(job)
