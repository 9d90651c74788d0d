"""Is the machine quiet? Processor time of everything on it, less that of this process and its children."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

#: More than this of one core taken by others, and a figure is not quoted: 5 % of a machine of two cores.
MOST_OTHERS_CORES = 0.1

_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # idle and iowait, in the order of /proc/stat
_GUEST = (8, 9)  # counted in user and nice, too


def machine_busy_s() -> float | None:
    """Seconds of processor time since the start of the system, stolen ones included; None where it is not told."""
    try:
        ticks = [int(v) for v in _STAT.read_text(encoding="ascii").splitlines()[0].split()[1:]]
    except (OSError, ValueError, IndexError):
        return None
    return sum(v for i, v in enumerate(ticks) if i not in (*_IDLE, *_GUEST)) / os.sysconf("SC_CLK_TCK")


def own_s(workers: Sequence[int] = ()) -> float:
    """Seconds of processor time of this process, of its ended children, and of the processes `workers`."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system + sum(map(_process_s, workers))


def _process_s(pid: int) -> float:
    try:
        # the name in brackets may hold spaces
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0  # it has ended, and is counted among the children
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # utime, stime, cutime, cstime


class LoadMeter:
    """How many cores others used since it was made, on average.

    Children of this process count as ours once they have ended; `workers` are processes that run on meanwhile.
    """

    def __init__(self, workers: Sequence[int] = ()) -> None:
        self._workers = tuple(workers)
        self._start = (time.monotonic(), machine_busy_s(), own_s(self._workers))

    def others_cores(self) -> float | None:
        """Cores, to three digits; None where the system does not say."""
        start_s, busy_s, ours_s = self._start
        now_busy_s, spent_s = machine_busy_s(), time.monotonic() - start_s
        if busy_s is None or now_busy_s is None or spent_s <= 0:
            return None
        return round(max(0.0, (now_busy_s - busy_s) - (own_s(self._workers) - ours_s)) / spent_s, 3)


def busy_sentence(loads: Mapping[str, float | None]) -> str:
    """What to say of the parts, by name, during which others used too much; empty if none did."""
    busy = [f"{load:.2f} cores during {part}" for part, load in loads.items() if load and load > MOST_OTHERS_CORES]
    if not busy:
        return ""
    return (
        f"other programs used {', '.join(busy)}, expected at most {MOST_OTHERS_CORES}: do not quote these times; "
        "stop those programs and measure again"
    )
