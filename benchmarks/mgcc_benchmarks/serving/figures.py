"""The figures that are claimed of a server, each with its bound."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A measured value; `bound` is the most that it may be."""

    name: str
    value: float
    bound: float
    unit: str
    of: str  # how it was measured

    @property
    def holds(self) -> bool:
        return self.value <= self.bound

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(figures: Sequence[dict[str, Any]]) -> list[str]:
    """Lines for a reader, of figures as `to_json` gives them."""
    lines = [f"{'':38} {'measured':>10} {'at most':>9}"]
    for told in figures:
        mark = "holds" if told["holds"] else "DOES NOT HOLD"
        value, bound = f"{told['value']:10.3g}", f"{told['bound']:9.3g}"
        lines.append(f"{told['name']:38} {value} {bound} {told['unit']:3} {mark:14} {told['of']}")
    return lines
