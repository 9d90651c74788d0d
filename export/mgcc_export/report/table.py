"""What a build did: as JSON for --report, as a table for a reader."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mgcc_export.graphs.validate import TensorParity
from mgcc_export.precision.report import LowReport
from mgcc_export.predict.estimate import Estimate
from mgcc_runtime.bundle.folder import Tolerance
from mgcc_runtime.commands.tables import aligned
from mgcc_runtime.machine import MEMINFO, available_memory_bytes

_MIB = 2**20
_CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")
#: Profiles that differ from one in a smaller language model alone.
SMALLER = {"paper": ("paper-2.7b", "paper-1.3b"), "paper-2.7b": ("paper-1.3b",)}


@dataclass(frozen=True)
class StageReport:
    """One stage of a finished build. Times are of the build that made it, also where the cache had it.

    `bytes` are of the stage's own files: weights that it takes from another stage's count there.
    """

    stage: str
    engine: str
    precision: str
    nodes: int
    weight_bytes: int
    bytes: int
    export_s: float
    validate_s: float
    from_cache: bool
    tolerance: Tolerance
    note: str
    parity: list[TensorParity]
    lowered: LowReport | None = None
    peak_memory_bytes: int = 0  # of the exporter while it made the stage; the engine's builder is in `lowered`

    @property
    def worst(self) -> TensorParity:
        """The result that is furthest from PyTorch's, relative to its size."""
        return max(self.parity, key=lambda p: p.relative_l2)


@dataclass(frozen=True)
class BuildReport:
    """A finished build."""

    bundle: str
    profile: str
    target: str
    precision: str
    weights: str
    note: str
    bytes: int
    elapsed_s: float
    peak_memory_bytes: int
    built_with: dict[str, str]
    stages: list[StageReport]
    rebuild: str  # the command that builds the same bundle

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        for stage, entry in zip(self.stages, values["stages"], strict=True):
            entry["worst"] = asdict(stage.worst)
        return values


def build_table(report: BuildReport) -> str:
    """The build, one line a stage."""
    rows = [("stage", "precision", "engine", "nodes", "size", "built in", "max diff", "rel. L2", "cosine", "")]
    for s in report.stages:
        seconds = f"{s.export_s + s.validate_s:.1f} s"
        rows.append(
            (
                s.stage,
                s.precision,
                s.engine,
                str(s.nodes),
                f"{s.bytes / _MIB:.1f} MiB",
                seconds,
                f"{max(p.max_difference for p in s.parity):.1e}",
                f"{s.worst.relative_l2:.1e}",
                f"{min(p.cosine for p in s.parity):.7f}",
                "; ".join(filter(None, ("kept from an earlier build" if s.from_cache else "", s.note))),
            )
        )
    return aligned(rows)


def estimate_table(estimate: Estimate) -> str:
    """An estimate, one line a stage and the sums."""
    rows = [("stage", "params", "weights")]
    rows += [(n, f"{c / 1e6:.2f} M", f"{4 * c / _MIB:.1f} MiB") for n, c in estimate.parameters.items()]
    return aligned(rows) + "\n" + estimate_line(estimate)


def estimate_line(estimate: Estimate) -> str:
    """An estimate in one sentence."""
    return (
        f"estimate: bundle {estimate.bundle_bytes / _MIB:.0f} MiB on disk, "
        f"{estimate.peak_memory_bytes / _MIB:.0f} MiB of memory while building, about {estimate.seconds:.0f} s on two "
        f"cores; {estimate.device_memory_bytes / _MIB:.0f} MiB of memory on the device"
    )


def shortages(estimate: Estimate, out: Path, cache: Path, smaller: Mapping[str, Estimate] | None = None) -> list[str]:
    """What this machine has less of than the estimate, one sentence each with the way out.

    Memory that other programs hold counts as absent. `smaller`: estimates of profiles to take instead, by name.
    """
    found = _disk_shortages(estimate, out, cache)
    memory, needed = _memory(), estimate.peak_memory_bytes
    if 0 < memory.available < needed:
        ways = ["use a larger machine", "a lower --precision", "fewer --stages"]
        if memory.total >= needed:
            ways.insert(0, "close other programs")
        less = {name: one.peak_memory_bytes for name, one in (smaller or {}).items() if one.peak_memory_bytes < needed}
        ways += [f"the smaller language model of --profile {n} ({b / _MIB:.0f} MiB)" for n, b in less.items()]
        found.append(
            f"this machine has {memory.available / _MIB:.0f} MiB of memory available of {memory.total / _MIB:.0f} in "
            f"all, the build may need {needed / _MIB:.0f}; {', '.join(ways[:-1])} or {ways[-1]}"
        )
    return found


def _disk_shortages(estimate: Estimate, out: Path, cache: Path) -> list[str]:
    """One sentence for each disk that is too small for what goes there: the bundle, the cache or both."""
    needs: dict[int, tuple[Path, int, list[str]]] = {}
    for folder, needed, option in ((out, estimate.bundle_bytes, "--out"), (cache, estimate.cache_bytes, "--cache")):
        existing = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
        disk = existing.stat().st_dev
        first, before, options = needs.get(disk, (existing, 0, []))
        needs[disk] = (first, before + needed, [*options, option])
    found = []
    for existing, needed, options in needs.values():
        if (free := shutil.disk_usage(existing).free) < needed:
            found.append(
                f"{existing} has {free / _MIB:.0f} MiB free, the build may need {needed / _MIB:.0f} there; "
                f"free some, or give another place with {' and '.join(options)}"
            )
    return found


class _Memory(NamedTuple):
    """Bytes of this machine, or of the container that this process is in; 0 where the system does not tell."""

    total: int
    available: int  # without swapping and without what other programs hold


def _memory(group: Path = _CONTROL_GROUP, told: Path = MEMINFO) -> _Memory:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        total = 0
    try:
        limit = int(group.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such limit: the file is absent, or says max
        limit = total
    total = min(total, limit) if total else limit
    available = available_memory_bytes(told) or total
    return _Memory(total, min(available, total) if total else available)
