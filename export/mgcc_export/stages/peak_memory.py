"""How much memory one stage took, where the system can tell (Linux)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mgcc_export.stages.cache import BuiltStage
from mgcc_runtime.machine import high_water_bytes


def reset_peak() -> None:
    """Reset this process's peak of memory to what it holds now; does nothing where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # see proc_pid_clear_refs(5)
    except OSError:
        return


def with_peak(make: Callable[[Path], BuiltStage], folder: Path) -> BuiltStage:
    """Call `make` with `folder`, and add the peak of memory to the stage that it returns."""
    reset_peak()
    return replace(make(folder), peak_memory_bytes=high_water_bytes())
