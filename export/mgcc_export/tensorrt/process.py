"""Runs an engine build as a process of its own, and says what happened when it died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from mgcc_export.errors import EngineRefusedError, ExportError
from mgcc_export.tensorrt.builder import REFUSED, EngineBuild, EngineJob
from mgcc_runtime.engines import way_to_get


def run_engine_job(job: EngineJob) -> EngineBuild:
    """Build the engine of `job` in another process; ExportError, or EngineRefusedError, with its own words."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job.to_json()), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        # The builder ends itself when the pipe's other end closes: however this process ends, even killed, or
        # interrupted before it knows the builder's id, the builder does not go on alone with gigabytes of memory.
        read_end, write_end = os.pipe()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "mgcc_export.tensorrt.builder", str(path), str(read_end)],
                capture_output=True, text=True, env=environment, pass_fds=(read_end,), check=False,
            )  # fmt: skip
        finally:
            os.close(read_end)
            os.close(write_end)
    if done.returncode:
        kind = EngineRefusedError if done.returncode == REFUSED else ExportError
        raise kind(_failure(job, done.returncode, done.stderr))
    return EngineBuild(**json.loads(done.stdout.strip().splitlines()[-1]))


def _failure(job: EngineJob, code: int, complaint: str) -> str:
    lines = [line for line in complaint.strip().splitlines() if line.strip()]
    if code in (1, REFUSED) and lines and lines[-1].startswith("stage "):
        return lines[-1]
    if code == -signal.SIGKILL:
        return (
            f"stage {job.stage}: the process that built its engine was killed, most often for want of memory; "
            "see --estimate, close other programs, or build on a larger machine"
        )
    if "No module named" in complaint:
        return (
            f"stage {job.stage}: the package {job.library} is not installed; "
            f"{way_to_get(job.library, ModuleNotFoundError(complaint))}"
        )
    return f"stage {job.stage}: building its engine ended with code {code} ({lines[-1] if lines else 'no message'})"
