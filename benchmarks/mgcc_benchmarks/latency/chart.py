"""The picture of a latency report: a bar to the median, a whisker to the 99th percentile or the slowest run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mgcc_runtime.measure.bench_table import SCALES, growth_text, loads_of
from mgcc_runtime.measure.machine_load import busy_sentence

Summary = Mapping[str, Any]

_WIDTH_IN, _ROW_IN, _HEAD_IN = 7.6, 0.2, 0.45
#: The entry of "grows_as" in each scale's heading.
_SHOWN_GROWTH = {"positions": "text", "objects": "objects", "images": "images", "threads": "concurrency"}


@dataclass(frozen=True)
class Panel:
    """A heading and its bars, which share one scale."""

    heading: str
    rows: tuple[tuple[str, Summary], ...]

    @property
    def height_in(self) -> float:
        return _HEAD_IN + _ROW_IN * len(self.rows)


def panels(found: Mapping[str, Any]) -> list[Panel]:
    """One panel for each thing that was measured."""
    result: list[Panel] = []
    if cold := found.get("cold_start"):
        rows = (*cold["phases_ms"].items(), ("total", cold["total_ms"]))
        result.append(Panel("Cold start: process start to first image", tuple(rows)))
    if "total_ms" in found:
        rows = (*found["stages_ms"].items(), ("total", found["total_ms"]))
        result.append(Panel(f"One warm request, {found['request']['steps']} steps", tuple(rows)))
    if dialogue := found.get("dialogue"):
        rows = tuple((f"turn {row['turn']}", row["total_ms"]) for row in dialogue["by_turn"])
        result.append(Panel(f"Turns of a dialogue, cache kept{_growth(dialogue, 'turns')}", rows))
    if scale := found.get("scale"):
        for kind, words in SCALES.items():
            rows = tuple((f"{row[kind]} {words}", row["total_ms"]) for row in scale[kind])
            heading = "Requests at once, no batch" if kind == "threads" else f"A request by {kind}"
            result.append(Panel(f"{heading}{_growth(scale, _SHOWN_GROWTH[kind])}", rows))
    return [panel for panel in result if panel.rows]


def _growth(part: Mapping[str, Any], name: str) -> str:
    """The growth as a heading states it; empty where too few points were measured."""
    growth = part["grows_as"][name]
    return f": grows as {growth_text(growth)}" if growth else ""


def chart(found: Mapping[str, Any]) -> Figure:
    """All panels, one under the other."""
    shown, bundle, machine = panels(found), found["bundle"], found["machine"]
    heights = [panel.height_in for panel in shown]
    figure = Figure(figsize=(_WIDTH_IN, 2 * _HEAD_IN + sum(heights)), layout="constrained")
    title = f"{bundle['profile']} for {bundle['target']} on {machine['cpu']}, {machine['threads']} threads"
    note = "milliseconds; bar: median, whisker: to the 99th percentile, below 100 runs to the slowest"
    busy = "\nNOT TO BE QUOTED: other programs used the machine" if busy_sentence(loads_of(found)) else ""
    figure.suptitle(f"{title}\n{note}{busy}", fontsize=9, color="tab:red" if busy else "black")
    if shown:
        axes = figure.subplots(len(shown), squeeze=False, height_ratios=heights)[:, 0]
        for number, (panel, ax) in enumerate(zip(shown, axes, strict=True)):
            _draw_panel(ax, panel, f"C{number % 10}")
    return figure


def _draw_panel(ax: Axes, panel: Panel, colour: str) -> None:
    names = [name for name, _ in panel.rows]
    medians = [summary["p50"] for _, summary in panel.rows]
    beyond = [max(0.0, summary["p99"] - summary["p50"]) for _, summary in panel.rows]
    places = range(len(names))
    ax.barh(places, medians, color=colour, xerr=([0.0] * len(names), beyond), error_kw={"lw": 1, "capsize": 2})
    for place, median, more in zip(places, medians, beyond, strict=True):
        ax.annotate(
            f"{median:.1f}", (median + more, place), (6, 0), textcoords="offset points", va="center", fontsize=7
        )
    ax.set_yticks(places, names, fontsize=7)
    ax.set_title(panel.heading, fontsize=8, loc="left")
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.tick_params(axis="x", labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
