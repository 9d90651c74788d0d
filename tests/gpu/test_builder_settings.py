"""On an NVIDIA GPU with TensorRT: whether the default room for kernels costs speed, and what kept times save."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mgcc_export.tensorrt.builder import EngineJob, profiles_of
from mgcc_export.tensorrt.process import run_engine_job
from mgcc_export.tensorrt.settings import AskedSettings, choose_settings
from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.engines.tensorrt.cuda_memory import free_memory_bytes
from mgcc_runtime.engines.tensorrt.record import record_path
from tests.runtime.engine_makers import spec_of, write_half_onnx
from tests.runtime.golden_data import example_inputs
from tests.runtime.tiny_bundle import DIMENSIONS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not importlib.util.find_spec("tensorrt"),
        reason="needs TensorRT, which times kernels as it builds: pip install 'mgcc-edge[tensorrt]'",
    ),
]
#: More than this slower than with all memory for a kernel, and the default share is too small.
MOST_SLOWER = 1.05


def job_of(folder: Path, name: str, workspace_bytes: int, timing_cache: str = "") -> EngineJob:
    graph, engine = write_half_onnx(folder, name), folder / f"{name}-{workspace_bytes}.engine"
    profiles = profiles_of(spec_of(name), DIMENSIONS.axes)
    paths = str(graph), str(engine), str(record_path(engine))
    return EngineJob("tensorrt", name, *paths, profiles, "", workspace_bytes, timing_cache)


def run_ms(job: EngineJob, runs: int = 50) -> float:
    """Median time of a run."""
    session, spent = open_session("tensorrt", Path(job.engine), spec_of(job.stage), EngineOptions()), []
    try:
        feeds = example_inputs(session.spec.inputs)
        for _ in range(runs):
            start_s = time.perf_counter()
            session.run(feeds)
            spent.append((time.perf_counter() - start_s) * 1e3)
    finally:
        session.close()
    return float(np.median(spent[5:]))


@pytest.mark.parametrize("name", ["unet", "vae_decoder", "llm"])
def test_the_default_room_is_as_fast_as_all_memory(tmp_path, name):
    chosen = choose_settings(AskedSettings(keep_times=False), "of this device").workspace_bytes
    every = job_of(tmp_path, name, free_memory_bytes(Device.first()))
    usual = job_of(tmp_path, name, chosen)
    for job in (every, usual):
        run_engine_job(job)
    assert run_ms(usual) <= MOST_SLOWER * run_ms(every)


def test_kept_times_shorten_the_next_build(tmp_path):
    job = job_of(tmp_path, "unet", 1 << 28, str(tmp_path / "times.bin"))
    first, second = run_engine_job(job), run_engine_job(replace(job, engine=str(tmp_path / "again.engine")))
    assert (tmp_path / "times.bin").stat().st_size > 0
    assert second.seconds <= first.seconds
