"""The parent's end of a worker: starts the process, asks, and turns its failures into one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from mgcc_benchmarks.peers.worker import Outputs, WorkerSpec, read_arrays
from mgcc_runtime.errors import MgccError

ROOT = Path(__file__).parents[3]
_SEARCH = [str(ROOT / folder) for folder in ("benchmarks", "runtime", "")]


class PeerError(MgccError):
    """A side of a comparison failed, or its outputs differ from the other's."""


class Worker:
    """A side that is loaded and waits. Use it as a context manager; `load_ms` is from process start to ready."""

    def __init__(self, python: Path, spec: WorkerSpec) -> None:
        self.spec = spec
        threads = {f"{name}_NUM_THREADS": str(spec.threads) for name in ("OMP", "OPENBLAS", "MKL")}
        quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        environment = {**os.environ, **threads, **quiet, "PYTHONPATH": os.pathsep.join(_SEARCH)}
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (see `close`)
        start_s = time.monotonic()
        self._process = subprocess.Popen(
            [python, "-m", "mgcc_benchmarks.peers.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=environment, text=True,
        )  # fmt: skip
        try:
            self.versions: dict[str, str] = self._tell(spec.to_json())["versions"]
        except BaseException:
            self.close()
            raise
        self.load_ms = (time.monotonic() - start_s) * 1e3

    @property
    def pid(self) -> int:
        return self._process.pid

    def outputs(self) -> Outputs:
        """The side's outputs for the work."""
        with tempfile.TemporaryDirectory(prefix="mgcc-peer-") as folder:
            reply = self._ask({"do": "outputs", "path": str(Path(folder) / "outputs.npz")})
            return read_arrays(Path(reply["path"]))

    def run_ms(self, least_ms: float) -> float:
        """Mean milliseconds of the work, repeated until `least_ms` have passed; once at least."""
        return float(self._ask({"do": "run", "least_ms": least_ms})["ms"])

    def peak_rss_mb(self) -> float | None:
        """The most memory that the process has had resident."""
        found: float | None = self._ask({"do": "memory"})["peak_rss_mb"]
        return found

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._tell(json.dumps(request))

    def _tell(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        reply: dict[str, Any] = json.loads(answer) if answer else {"error": self._last_words()}
        if "error" in reply:
            raise PeerError(
                f"{self.spec.side} failed ({reply['error']}), expected it to do its work; mend it, or leave it out "
                "with --only"
            )
        return reply

    def _last_words(self) -> str:
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return f"the process ended with {code}: {lines[-1][:300] if lines else 'nothing was said'}"

    def close(self) -> None:
        """End the process: it stops when its input does, and is killed if it does not."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # it is gone already
                    pipe.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
