"""The check for a quiet machine before a comparison starts."""

from __future__ import annotations

import time

from mgcc_runtime.device.cpu_features import available_cores
from mgcc_runtime.errors import OptionError
from mgcc_runtime.measure.machine_load import MOST_OTHERS_CORES, LoadMeter

SAMPLE_S = 3.0


class BusyError(OptionError):
    """Others use the machine's processors."""


def sample_others(seconds: float = SAMPLE_S) -> float | None:
    """Cores that others use while this process sleeps."""
    meter = LoadMeter()
    time.sleep(seconds)
    return meter.others_cores()


def require_quiet(others_cores: float | None) -> None:
    """BusyError if others use the machine, or if their load is unknown."""
    if others_cores is None:
        raise BusyError(
            "this system does not tell its load (no /proc/stat), expected a quiet machine; make sure of it and give "
            "--allow-busy, which marks the result as not quotable"
        )
    if others_cores > MOST_OTHERS_CORES:
        raise BusyError(
            f"other programs use {others_cores:.1f} of {available_cores()} cores, expected at most {MOST_OTHERS_CORES}"
            "; stop them, or give --allow-busy, which marks the result as not quotable"
        )
