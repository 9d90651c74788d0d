"""Is the machine quiet? Processor time of everything on it, less that of this benchmark."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path

from mgcc_runtime.errors import OptionError
from mgcc_runtime.machine import available_cores

#: More than this of one core taken by others, and a figure is not quoted: 5 % of a machine of two cores.
MOST_OTHERS_CORES = 0.1
SAMPLE_S = 3.0

_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # idle and iowait, in the order of /proc/stat
_GUEST = (8, 9)  # counted in user and nice, too


class BusyError(OptionError):
    """Others use the machine's processors."""


def machine_busy_s() -> float | None:
    """Seconds of processor time since the start of the system, stolen ones included; None where it is not told."""
    try:
        ticks = [int(v) for v in _STAT.read_text(encoding="ascii").splitlines()[0].split()[1:]]
    except (OSError, ValueError, IndexError):
        return None
    return sum(v for i, v in enumerate(ticks) if i not in (*_IDLE, *_GUEST)) / os.sysconf("SC_CLK_TCK")


def own_s(workers: Sequence[int] = ()) -> float:
    """Processor time of this process, of its ended children, and of the processes `workers`."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(map(_process_s, workers))


def _process_s(pid: int) -> float:
    try:
        # the name in brackets may hold spaces
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0  # it has ended, and is counted among the children
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # utime, stime, cutime, cstime


class LoadMeter:
    """How many cores others used since it was made, on average; None where the system does not say."""

    def __init__(self, workers: Sequence[int] = ()) -> None:
        self._workers = tuple(workers)
        self._start = (time.monotonic(), machine_busy_s(), own_s(self._workers))

    def others_cores(self) -> float | None:
        start_s, busy_s, ours_s = self._start
        now_busy_s, spent_s = machine_busy_s(), time.monotonic() - start_s
        if busy_s is None or now_busy_s is None or spent_s <= 0:
            return None
        return max(0.0, (now_busy_s - busy_s) - (own_s(self._workers) - ours_s)) / spent_s


def sample_others(seconds: float = SAMPLE_S) -> float | None:
    """Cores that others use while this process sleeps."""
    meter = LoadMeter()
    time.sleep(seconds)
    return meter.others_cores()


def require_quiet(others_cores: float | None) -> None:
    """BusyError if others use the machine, or nobody can say."""
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
