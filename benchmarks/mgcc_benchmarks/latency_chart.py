"""The picture of a latency report: a bar to the median, a whisker to the 99th percentile or the slowest run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from mgcc_runtime.bench_table import SCALES, growth_text, loads_of
from mgcc_runtime.load import busy_sentence

Summary = Mapping[str, Any]

_WIDTH_PX, _MARGIN_PX, _NAME_PX, _VALUE_PX = 760, 24, 150, 90
_ROW_PX, _BAR_PX, _HEAD_PX, _FONT_PX = 20, 13, 40, 12
_INK, _PALE, _RED = (30, 30, 30), (120, 120, 120), (190, 40, 40)
#: What of "grows_as" stands beside each scale's heading.
_SHOWN_GROWTH = {"positions": "text", "objects": "objects", "images": "images", "threads": "concurrency"}
_COLOURS = (
    (86, 150, 210),
    (236, 160, 80),
    (70, 150, 90),
    (170, 120, 190),
    (200, 90, 90),
    (110, 110, 160),
    (90, 160, 160),
)


@dataclass(frozen=True)
class Panel:
    """A heading and its bars, which share one scale."""

    heading: str
    rows: tuple[tuple[str, Summary], ...]

    @property
    def height_px(self) -> int:
        return _HEAD_PX + _ROW_PX * len(self.rows)


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
    """What a heading says of the growth; empty where too few points were measured."""
    growth = part["grows_as"][name]
    return f": grows as {growth_text(growth)}" if growth else ""


def chart(found: Mapping[str, Any]) -> Image.Image:
    """All panels, one under the other."""
    shown, bundle, machine = panels(found), found["bundle"], found["machine"]
    height = 2 * _MARGIN_PX + _HEAD_PX + sum(panel.height_px for panel in shown)
    image = Image.new("RGB", (_WIDTH_PX, height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_PX)
    title = f"{bundle['profile']} for {bundle['target']} on {machine['cpu']}, {machine['threads']} threads"
    draw.text((_MARGIN_PX, _MARGIN_PX), title, fill=_INK, font=font)
    note = "milliseconds; bar: median, whisker: to the 99th percentile, below 100 runs to the slowest"
    draw.text((_MARGIN_PX, _MARGIN_PX + 16), note, fill=_PALE, font=font)
    if busy_sentence(loads_of(found)):
        text = "NOT TO BE QUOTED: other programs used the machine"
        draw.text((_MARGIN_PX, _MARGIN_PX + 32), text, fill=_RED, font=font)
    top = _MARGIN_PX + _HEAD_PX
    for panel, colour in zip(shown, _COLOURS[: len(shown)], strict=True):
        _draw_panel(draw, font, panel, top, colour)
        top += panel.height_px
    return image


def _draw_panel(draw: ImageDraw.ImageDraw, font: Any, panel: Panel, top: int, colour: Sequence[int]) -> None:
    draw.text((_MARGIN_PX, top + 14), panel.heading, fill=_INK, font=font)
    most = max(summary["p99"] for _, summary in panel.rows) or 1.0
    left, room = _MARGIN_PX + _NAME_PX, _WIDTH_PX - 2 * _MARGIN_PX - _NAME_PX - _VALUE_PX
    for i, (name, summary) in enumerate(panel.rows):
        y = top + _HEAD_PX + i * _ROW_PX
        median, end = (left + room * summary[key] / most for key in ("p50", "p99"))
        draw.text((_MARGIN_PX, y), name, fill=_INK, font=font)
        draw.rectangle((left, y, max(median, left + 1), y + _BAR_PX), fill=tuple(colour))
        draw.line((median, y + _BAR_PX / 2, end, y + _BAR_PX / 2), fill=_INK)
        draw.line((end, y + 3, end, y + _BAR_PX - 3), fill=_INK)
        draw.text((end + 8, y), f"{summary['p50']:.1f}", fill=_PALE, font=font)
