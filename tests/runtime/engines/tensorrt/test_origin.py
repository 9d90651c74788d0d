"""An engine that passes the check on another GPU of its kind says so, in one sentence."""

from __future__ import annotations

import json
import logging

import pytest

from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines.tensorrt import origin
from mgcc_runtime.engines.tensorrt.origin import bundle_remark, origin_remark
from mgcc_runtime.engines.tensorrt.record import read_record, record_path
from mgcc_runtime.errors import EngineError
from tests.runtime.engine_makers import open_it, write_plan
from tests.runtime.releases import TENSORRT, TENSORRT_RTX

ORIN_NANO = Device("Orin (nvgpu)", "8.7", "12.6", True, 8, 7_990_000_000)
AGX_ORIN = {"multiprocessors": 16, "gpu_memory_bytes": 64_350_000_000, "compute_capability": "8.7"}


@pytest.fixture(autouse=True)
def forget():
    origin.warn_once.cache_clear()


def record_with(folder, release=TENSORRT[0], **changes):
    return read_record(write_plan(folder, "vae_decoder", release, **changes))


def test_an_engine_of_an_agx_orin_says_so_on_an_orin_nano(tmp_path):
    told = origin_remark(record_with(tmp_path, **AGX_ORIN), ORIN_NANO)
    assert told.startswith(
        "engines were built on a GPU with 16 multiprocessors and 59.9 GiB, and Orin (nvgpu) has 8 multiprocessors and "
        "7.4 GiB: they run, but"
    )
    assert "rebuild them here with `" in told and "\n" not in told


@pytest.mark.parametrize(
    "changes",
    [
        {"multiprocessors": 8, "gpu_memory_bytes": 7_990_000_000},
        {"multiprocessors": 8, "gpu_memory_bytes": 7_400_000_000},  # another carve-out of the same module
        {"multiprocessors": 0, "gpu_memory_bytes": 0},  # a record of before
    ],
)
def test_the_same_device_is_told_nothing(tmp_path, changes):
    assert origin_remark(record_with(tmp_path, **changes), ORIN_NANO) == ""


def test_the_same_multiprocessors_with_half_the_memory_are_another_device(tmp_path):
    assert origin_remark(record_with(tmp_path, multiprocessors=8, gpu_memory_bytes=16_000_000_000), ORIN_NANO)


def test_portable_engines_were_built_for_no_certain_gpu(tmp_path):
    assert origin_remark(record_with(tmp_path, TENSORRT_RTX[0], **AGX_ORIN), ORIN_NANO) == ""


def test_a_record_of_before_is_read(tmp_path):
    path = write_plan(tmp_path, "vae_decoder", TENSORRT[0])
    values = json.loads(record_path(path).read_text())
    del values["multiprocessors"], values["gpu_memory_bytes"]
    record_path(path).write_text(json.dumps(values))
    assert read_record(path).multiprocessors == 0


@pytest.mark.parametrize("release", TENSORRT, ids=str, indirect=True)
def test_it_is_logged_once_when_engines_are_loaded(host, release, tmp_path, caplog):
    changes = {"multiprocessors": 16, "gpu_memory_bytes": host.memory_bytes}
    path = write_plan(tmp_path, "vae_decoder", release, **changes)
    with caplog.at_level(logging.WARNING, "mgcc_runtime"):
        for _ in range(2):
            open_it(path, release).close()
    assert [r.getMessage().split(", and")[0] for r in caplog.records] == [
        "engines were built on a GPU with 16 multiprocessors and 1.0 GiB"
    ]


def test_a_bundle_without_engines_or_a_gpu_says_nothing(bundle_path, monkeypatch):
    from mgcc_runtime.bundle.folder import Bundle

    bundle = Bundle.open(bundle_path)
    monkeypatch.setattr(Device, "named", classmethod(lambda cls: pytest.fail("no GPU is asked for")))
    assert bundle_remark(bundle) == ""

    def none(cls):
        raise EngineError("no GPU")

    monkeypatch.setattr(Device, "named", classmethod(none))
    for name, entry in bundle.manifest.stages.items():
        object.__setattr__(entry, "engine", "tensorrt")
        assert bundle.manifest.stages[name].engine == "tensorrt"
    assert bundle_remark(bundle) == ""
