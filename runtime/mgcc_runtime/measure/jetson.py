"""What a Jetson says of itself: power mode, clocks, and tegrastats with its power rails.

Formats: `nvpmodel -q`, `jetson_clocks --show` and `tegrastats` of JetPack 5 to 7 on Orin ("Platform Power and
Performance" and "tegrastats" in NVIDIA's Jetson Linux Developer Guide). Rails stand as "now mW/mean mW". Orin Nano
and Orin NX measure the whole module (VDD_IN); AGX Orin has no such rail, there the module is the sum of three.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

#: The rails that together are the module, the first set of which all are there.
MODULE_RAILS = (("VDD_IN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
_BUSY_PERCENT = 50  # a GPU with less to do may lower its clock by itself
_FELL = 0.95  # of the highest clock seen: below that, something took it down

_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]+) (\d+)(?:mW)?/(\d+)(?:mW)?(?= |$)")
_HEAT = re.compile(r"\b([A-Za-z][A-Za-z0-9_]*)@(-?\d+(?:\.\d+)?)C\b")
_GPU = re.compile(r"\bGR3D_FREQ (\d+)%(?:@\[?(\d+))?")
_MEMORY_CLOCK = re.compile(r"\bEMC_FREQ \d+%@(\d+)")
_CLOCK = re.compile(r"^(\w+?):?\s+.*?MinFreq=(\d+) MaxFreq=(\d+) CurrentFreq=(\d+)", re.MULTILINE)
_ABSENT_HEAT_C = -200.0  # a sensor that is switched off reads -256


@dataclass(frozen=True)
class PowerMode:
    """The profile that nvpmodel has set, such as MAXN, 15W or MAXN_SUPER."""

    name: str
    number: int | None


@dataclass(frozen=True)
class Sample:
    """One line of tegrastats, `at_s` seconds on the monotonic clock."""

    at_s: float
    rails_mw: Mapping[str, int]  # power now, by rail
    ram_mb: int | None
    heat_c: Mapping[str, float]
    gpu_percent: int | None
    gpu_mhz: int | None
    memory_mhz: int | None

    @property
    def module_mw(self) -> int | None:
        """Power of the whole module; None where the line has not all of its rails."""
        rails = module_rails(self.rails_mw)
        return sum(self.rails_mw[name] for name in rails) if rails else None


def parse_power_mode(text: str) -> PowerMode | None:
    """Of `nvpmodel -q`; None if it names no mode."""
    if not (found := re.search(r"^NV Power Mode:\s*(\S.*?)\s*$", text, re.MULTILINE)):
        return None
    number = re.search(r"^\s*(\d+)\s*$", text[found.end() :], re.MULTILINE)
    return PowerMode(found[1], int(number[1]) if number else None)


def parse_clocks(text: str) -> dict[str, dict[str, float]]:
    """Of `jetson_clocks --show`: MHz by unit ("cpu0", "GPU", "EMC" ...): {"min", "max", "now"}."""
    return {
        unit: {name: round(int(value) / _hertz_per_mhz(unit), 1) for name, value in zip(_LIMITS, values, strict=True)}
        for unit, *values in _CLOCK.findall(text)
    }


_LIMITS = ("min", "max", "now")


def _hertz_per_mhz(unit: str) -> float:
    return 1e3 if unit.startswith("cpu") else 1e6  # cpufreq counts in kHz, everything else in Hz


def clocks_locked(clocks: Mapping[str, Mapping[str, float]]) -> bool | None:
    """Whether `jetson_clocks` holds the GPU at its highest clock; None if there is no word of the GPU."""
    gpu = clocks.get("GPU")
    return gpu["min"] == gpu["max"] if gpu else None


def parse_sample(line: str, at_s: float) -> Sample | None:
    """Of one line of tegrastats; None if it is none."""
    if not (ram := _RAM.search(line)):
        return None
    gpu, memory = _GPU.search(line), _MEMORY_CLOCK.search(line)
    heat = {name.lower(): float(value) for name, value in _HEAT.findall(line)}
    return Sample(
        at_s=at_s,
        rails_mw={name: int(now) for name, now, _ in _RAIL.findall(line) if name not in {"RAM", "SWAP"}},
        ram_mb=int(ram[1]),
        heat_c={name: value for name, value in heat.items() if value > _ABSENT_HEAT_C},
        gpu_percent=int(gpu[1]) if gpu else None,
        gpu_mhz=int(gpu[2]) if gpu and gpu[2] else None,
        memory_mhz=int(memory[1]) if memory else None,
    )


def module_rails(rails_mw: Mapping[str, int]) -> tuple[str, ...]:
    """Names of the rails that make up the module; empty if they are not all there."""
    return next((names for names in MODULE_RAILS if all(name in rails_mw for name in names)), ())


def energy_j(samples: Sequence[Sample], start_s: float, end_s: float) -> float | None:
    """Energy of the module from `start_s` to `end_s`: trapezoids between samples, the outer ones held to the ends.

    None without a sample of its power.
    """
    points = [(s.at_s, s.module_mw / 1e3) for s in samples if s.module_mw is not None]
    if not points:
        return None
    times, watts = (np.array(column) for column in zip(*points, strict=True))
    inside = times[(times > start_s) & (times < end_s)]
    grid = np.concatenate([[start_s], inside, [end_s]])
    power = np.interp(grid, times, watts)
    return float(sum((b - a) * (p + q) / 2 for (a, b), (p, q) in zip(pairwise(grid), pairwise(power), strict=True)))


def summarise_power(samples: Sequence[Sample], start_s: float, end_s: float, images: int) -> dict[str, Any]:
    """Energy an image, power by rail, memory of the whole system, heat and clocks over a time of drawing `images`."""
    within = [s for s in samples if start_s <= s.at_s <= end_s] or list(samples)
    total_j = energy_j(samples, start_s, end_s)
    rails = sorted({name for s in within for name in s.rails_mw})
    busy = [s.gpu_mhz for s in within if s.gpu_mhz is not None and (s.gpu_percent or 0) >= _BUSY_PERCENT]
    heat = {name: max(s.heat_c.get(name, _ABSENT_HEAT_C) for s in within) for s in within for name in s.heat_c}
    return {
        "samples": len(within),
        "module_rails": list(module_rails(within[0].rails_mw)) if within else [],
        "energy_per_image_j": None if total_j is None else round(total_j / images, 4),
        "mean_power_w": None if total_j is None else round(total_j / (end_s - start_s), 3),
        "rails_mean_mw": {name: _mean([s.rails_mw[name] for s in within if name in s.rails_mw]) for name in rails},
        "most_system_ram_mb": max((s.ram_mb for s in within if s.ram_mb is not None), default=None),
        "hottest_c": heat,
        "busy_gpu_mhz": [min(busy), max(busy)] if busy else None,
        "gpu_clock_fell": bool(busy) and min(busy) < _FELL * max(busy),
    }


def _mean(values: Sequence[int]) -> float:
    return round(float(np.mean(values)), 1)


def throttle_counts(root: Path = Path("/sys/class/hwmon")) -> dict[str, int]:
    """How often the hardware has throttled since boot: oc1 under-voltage, oc2 mean and oc3 instantaneous over-current.

    Empty where there are no such counters.
    """
    found = {}
    for path in sorted(root.glob("hwmon*/oc*_event_cnt")):
        try:
            found[path.name.removesuffix("_event_cnt")] = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue  # a counter that cannot be read says nothing
    return found
