"""What TensorRT's builder is told of a device, for each release: room for kernels, and the times it kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mgcc_export import cli, device_build
from mgcc_export.device_build import build_on_device, main
from mgcc_export.errors import EngineRefusedError
from mgcc_export.tensorrt.builder import EngineJob, build_engine, command_of, profiles_of
from mgcc_export.tensorrt.settings import AskedSettings, choose_settings, default_workspace_bytes
from mgcc_runtime.contract import stage
from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines.tensorrt.record import read_record, record_path
from mgcc_runtime.errors import OptionError
from tests.runtime.engine_makers import write_half_onnx
from tests.runtime.host_builder import HostBuilder, HostBuilderConfig
from tests.runtime.host_gpu import HostDriver
from tests.runtime.host_tensorrt import host_gpu_with
from tests.runtime.releases import RELEASES, TENSORRT, Release
from tests.runtime.tiny_bundle import DIMENSIONS

MIB = 2**20


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


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[HostBuilderConfig]:
    """The configurations that the builder was given."""
    made: list[HostBuilderConfig] = []
    create = HostBuilder.create_builder_config

    def watched(self: HostBuilder) -> HostBuilderConfig:
        made.append(create(self))
        return made[-1]

    monkeypatch.setattr(HostBuilder, "create_builder_config", watched)
    return made


def job_of(folder: Path, release: Release, workspace_bytes: int = 0, timing_cache: Path | None = None) -> EngineJob:
    engine = folder / "grounder.engine"
    graph, profiles = write_half_onnx(folder, "grounder"), profiles_of(stage(DIMENSIONS, "grounder"), DIMENSIONS.axes)
    return EngineJob(
        release.library, "grounder", str(graph), str(engine), str(record_path(engine)), profiles, "again",
        workspace_bytes, str(timing_cache or ""),
    )  # fmt: skip


def test_the_workspace_is_limited_in_every_release(
    device: HostDriver, release: Release, tmp_path: Path, configs: list[HostBuilderConfig]
) -> None:
    pool = release.classes["MemoryPoolType"]["enumeration"]["WORKSPACE"]
    for asked in (0, 96 * MIB):
        build_engine(job_of(tmp_path, release, asked))
        limits = {int(p): size for p, size in configs[-1].limits.items()}
        assert limits == ({pool: asked} if asked else {})
    with pytest.raises(EngineRefusedError, match="or give more than 96 MiB with --workspace"):
        build_engine(replace(job_of(tmp_path, release, 96 * MIB), profiles=()))


def test_times_are_kept_for_the_next_engine(
    device: HostDriver, release: Release, tmp_path: Path, configs: list[HostBuilderConfig]
) -> None:
    """One more entry each time; of another version, or no cache at all, it is begun anew."""
    times = tmp_path / "times" / "cache.bin"
    for number in (1, 2):
        build_engine(job_of(tmp_path, release, timing_cache=times))
        assert times.read_bytes().count(b"timing") == number
    for other in (b"9.9.9\ntiming\ntiming\n", b""):
        times.write_bytes(other)
        build_engine(job_of(tmp_path, release, timing_cache=times))
        assert times.read_bytes() == f"{release.version}\ntiming\n".encode()
    build_engine(job_of(tmp_path, release))
    assert configs[-1].timing_cache is None


def test_times_that_cannot_be_kept_are_no_error(device: HostDriver, release: Release, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    job = job_of(tmp_path, release, timing_cache=tmp_path / "file" / "cache.bin")
    build_engine(job)
    assert Path(job.engine).is_file()


@pytest.mark.parametrize("release", TENSORRT[:1], ids=str, indirect=True)
def test_the_default_is_a_share_of_what_is_free(device: HostDriver) -> None:
    own = Device.first()
    assert default_workspace_bytes(own) == 768 * MIB  # three quarters of the GPU's 1 GiB
    assert default_workspace_bytes(replace(own, integrated=True)) == 256 * MIB  # a quarter: the system's too
    device.memory_bytes = 80 * MIB
    assert default_workspace_bytes(own) == 64 * MIB
    device.memory_bytes = 40 * MIB
    assert default_workspace_bytes(own) == 40 * MIB


@pytest.mark.parametrize("release", TENSORRT[:1], ids=str, indirect=True)
def test_times_belong_to_a_version_and_a_device(device: HostDriver, tmp_path: Path) -> None:
    def of(version: str) -> str:
        return choose_settings(AskedSettings(), version).timing_cache

    first = of("10.3.0")
    assert first == of("10.3.0") and Path(first).parent == tmp_path / "cache" / "timings"
    assert first != of("10.7.0")
    device.multiprocessors = 16
    assert first != of("10.3.0")
    assert choose_settings(AskedSettings(keep_times=False), "10.3.0").timing_cache == ""
    own = choose_settings(AskedSettings(32, tmp_path / "own.bin"), "10.3.0")
    assert (own.workspace_bytes, own.timing_cache) == (32 * MIB, str(tmp_path / "own.bin"))
    with pytest.raises(OptionError, match="--workspace is 0, expected 1 MiB or more"):
        AskedSettings(0)


@pytest.mark.parametrize("release", TENSORRT, ids=str, indirect=True)
def test_the_command_takes_both_and_says_what_it_took(
    device: HostDriver, release: Release, planned: Path, tmp_path: Path, configs: list[HostBuilderConfig],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    times, out = tmp_path / "times.bin", tmp_path / "engines"
    words = ["--bundle", str(planned), "--out", str(out), "--workspace", "48", "--timing-cache", str(times)]
    assert main(words) == 0
    assert f"builder: workspace 48 MiB, kernel times kept in {times}" in capsys.readouterr().err
    assert {*configs[0].limits.values()} == {48 * MIB} and times.read_bytes().count(b"timing") == len(configs)
    record = read_record(out / "unet.engine")
    assert "--memPoolSize=workspace:48M" in record.command
    assert (record.multiprocessors, record.gpu_memory_bytes) == (8, 1 << 30)
    assert main([*words[:4], "--timing-cache", "none"]) == 0
    assert "kernel times not kept" in capsys.readouterr().err
    assert main([*words[:4], "--workspace", "-1"]) == 2


@pytest.mark.parametrize("release", TENSORRT[:1], ids=str, indirect=True)
def test_an_interrupted_build_goes_on_with_engines_of_this_device_alone(
    device: HostDriver, release: Release, planned: Path, tmp_path: Path
) -> None:
    """A card with a half-built bundle that is put into another device of the same kind."""

    def stop(stage_name: str, step: str) -> None:
        if stage_name == "refiner":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_on_device(planned, tmp_path / "out", stop)
    device.multiprocessors = 16
    told: list[str] = []
    build_on_device(planned, tmp_path / "out", lambda stage_name, step: told.append(step))
    assert "kept from an earlier build" not in told
    assert read_record(tmp_path / "out" / "llm.engine").multiprocessors == 16


def test_other_targets_have_no_such_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--profile", "tiny", "--target", "rtx", "--workspace", "8"]) == 2
    assert "were given for target rtx, expected jetson or tensorrt" in capsys.readouterr().err


def test_a_job_says_its_settings_to_the_builders_process(tmp_path: Path) -> None:
    job = job_of(tmp_path, TENSORRT[0], 7 * MIB, tmp_path / "t.bin")
    assert EngineJob.from_json(json.loads(json.dumps(job.to_json()))) == job
    assert "--memPoolSize=workspace:7M" in command_of(job)
