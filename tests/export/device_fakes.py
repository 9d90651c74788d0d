"""A device without its TensorRT: the module's version, and engines that are a few bytes with their records."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mgcc_export.tensorrt.builder import EngineBuild, EngineJob, command_of
from mgcc_export.tensorrt.settings import BuilderSettings
from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.engines.tensorrt.record import EngineRecord


@dataclass
class FakeDevice:
    """Which engines were asked for, in order. `interrupt_at`: Ctrl-C comes while this stage's is built."""

    built: list[str] = field(default_factory=list)
    interrupt_at: str = ""

    def run(self, job: EngineJob) -> EngineBuild:
        """In the place of `run_engine_job`."""
        if job.stage == self.interrupt_at:
            raise KeyboardInterrupt
        self.built.append(job.stage)
        engine = Path(job.engine)
        engine.write_bytes(f"engine of {job.stage}".encode())
        record = EngineRecord(
            job.library, "10.7.0", "linux-aarch64", "8.7", sha256_of(engine), (), (), (), (), job.rebuild,
            " ".join(command_of(job)),
        )  # fmt: skip
        Path(job.record).write_text(json.dumps(record.to_json()))
        return EngineBuild(engine.stat().st_size, 0.1, 10**6, 1)


def fake_device(monkeypatch: pytest.MonkeyPatch, version: str = "10.7.0") -> FakeDevice:
    """Have this machine pass for a device with this version of TensorRT."""
    library = types.ModuleType("tensorrt")
    library.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    device = FakeDevice()
    monkeypatch.setattr("mgcc_export.device_build.run_engine_job", device.run)
    monkeypatch.setattr("mgcc_export.device_build.choose_settings", lambda asked, version: BuilderSettings())
    monkeypatch.setattr("mgcc_export.device_build._check_gpu", lambda: None, raising=False)
    return device
