"""Clocks and power while something is measured: a Jetson's own tools where they are, an NVIDIA card's, the CPU's."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mgcc_runtime.machine import NVIDIA_SMI, tool_output
from mgcc_runtime.measure.jetson import (
    Sample,
    clocks_locked,
    parse_clocks,
    parse_power_mode,
    parse_sample,
    summarise_power,
    throttle_counts,
)

TEGRASTATS, NVPMODEL, JETSON_CLOCKS = "tegrastats", "nvpmodel", "jetson_clocks"
_INTERVAL_MS = 100
_PATIENCE_S = 10.0  # with tegrastats at its end
_GPU_FIELDS = ("name", "driver_version", "power.limit", "clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu")


def describe_clocks() -> dict[str, Any]:
    """CPU governor and MHz; power mode and clocks of a Jetson; clocks of an NVIDIA card. Only what is there."""
    found: dict[str, Any] = {"cpu": _cpu_clocks()}
    if shutil.which(NVPMODEL):
        found["jetson"] = _describe_jetson()
    if shutil.which(NVIDIA_SMI):
        text = tool_output(NVIDIA_SMI, f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader")
        found["gpus"] = [dict(zip(_GPU_FIELDS, map(str.strip, line.split(",")), strict=False)) for line in _lines(text)]
    return found


def _describe_jetson() -> dict[str, Any]:
    mode = parse_power_mode(tool_output(NVPMODEL, "-q"))
    clocks = parse_clocks(tool_output(JETSON_CLOCKS, "--show"))  # root alone is told
    return {
        "power_mode": mode.name if mode else None,
        "power_mode_number": mode.number if mode else None,
        "clocks_mhz": clocks,
        "clocks_locked": clocks_locked(clocks),
    }


def _cpu_clocks(root: Path = Path("/sys/devices/system/cpu/cpu0/cpufreq")) -> dict[str, Any]:
    """Of the first core; empty where the system has no cpufreq, as in most virtual machines."""
    try:
        now, most = (int((root / f"scaling_{kind}_freq").read_text(encoding="ascii")) for kind in ("cur", "max"))
        governor = (root / "scaling_governor").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return {}
    return {"governor": governor, "mhz": round(now / 1e3, 1), "most_mhz": round(most / 1e3, 1)}


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


class PowerMeter:
    """Reads tegrastats in the background between `with` and its end. Where there is none, `summary` gives None."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._start_s = self._end_s = 0.0
        self._before: dict[str, int] = {}

    def __enter__(self) -> PowerMeter:
        if shutil.which(TEGRASTATS):
            command = [TEGRASTATS, "--interval", str(_INTERVAL_MS)]
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
            )
            assert self._process.stdout is not None
            self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
            self._reader.start()
        self._before = throttle_counts()
        self._start_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_s = time.monotonic()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._reader is not None
        self._reader.join(_PATIENCE_S)

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            if (sample := parse_sample(line, time.monotonic())) is not None:
                self._samples.append(sample)

    def summary(self, images: int) -> dict[str, Any] | None:
        """After the end: energy an image, power, heat, clocks and throttling; None where tegrastats said nothing."""
        if not self._samples:
            return None
        found = summarise_power(self._samples, self._start_s, self._end_s, images)
        events = {name: count - self._before.get(name, 0) for name, count in throttle_counts().items()}
        return {
            **found,
            "interval_ms": _INTERVAL_MS,
            "throttle_events": events,
            "throttled": any(events.values()) or found["gpu_clock_fell"],
        }
