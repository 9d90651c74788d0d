"""The comparison as a Markdown table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_WIDTH_PX, _MARGIN_PX, _NAME_PX, _VALUE_PX = 820, 24, 240, 130
_ROW_PX, _BAR_PX, _HEAD_PX, _FONT_PX = 22, 13, 56, 12
_INK, _PALE, _AIM, _RED = (30, 30, 30), (120, 120, 120), (200, 90, 90), (190, 40, 40)
_FASTER, _SLOWER = (70, 150, 90), (200, 160, 80)


def markdown(found: Mapping[str, Any]) -> str:
    """The whole report as Markdown."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    machine, bundle = found["machine"], found["bundle"]
    yield f"# Ours against others: {bundle['profile']} on {machine['cpu']}, {found['threads']} threads"
    yield ""
    if not found["quotable"]:
        yield f"**Not to be quoted: {'; '.join(found['why_not_quotable'])}.**"
        yield ""
    yield f"Bundle `{bundle['sha256'][:12]}`, {found['runs']} rounds a comparison after {found['warm_up']} that are not"
    yield "counted, both sides in turns, the first to go changing from round to round, with the same threads, weights"
    yield "and inputs, and found to give the same before. Ratios are theirs / ours: above 1 ours is faster. A figure of"
    yield "fewer than 10 measurements has no interval."
    yield ""
    if not found["complete"]:
        yield "**Incomplete: the run did not come to its end.**"
        yield ""
    if found["ratios"]:
        yield "| comparison | ratio | 95 % interval | aimed at | ours, ms | theirs, ms |"
        yield "| --- | ---: | ---: | ---: | ---: | ---: |"
        for name, row in found["ratios"].items():
            aim = "" if row["aim"] is None else f"≥ {row['aim']:g}"
            times = f"{row['ours_ms']:.2f} | {row['theirs_ms']:.2f}"
            yield f"| `{name}` | {row['value']:.2f} | {_interval(row)} | {aim} | {times} |"
        yield ""
    if found["figures"]:
        yield "| figure | value | 95 % interval | aimed at |"
        yield "| --- | ---: | ---: | ---: |"
        for name, row in found["figures"].items():
            aim = "" if row["aim"] is None else f"≤ {row['aim']:g} {row['unit']}"
            yield f"| `{name}` | {row['value']:.3g} {row['unit']} | {_interval(row)} | {aim} |"
        yield ""
    for kind, heading in (("skipped", "Left out:"), ("failed", "Failed:")):
        if found[kind]:
            yield heading
            yield from (f"- `{name}`: {why}" for name, why in found[kind].items())
            yield ""


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["ci95"]
    return "" if low is None else f"{low:.3g} to {high:.3g}"


def chart(found: Mapping[str, Any]) -> Image.Image:
    """A bar from 1 to each ratio on a logarithmic scale, a whisker for its interval, a red mark at the aim."""
    rows: Mapping[str, Mapping[str, Any]] = found["ratios"]
    height = 2 * _MARGIN_PX + _HEAD_PX + _ROW_PX * max(1, len(rows))
    image = Image.new("RGB", (_WIDTH_PX, height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_PX)
    machine = found["machine"]
    title = f"{found['bundle']['profile']} on {machine['cpu']}, {found['threads']} threads"
    draw.text((_MARGIN_PX, _MARGIN_PX), title, fill=_INK, font=font)
    note = "times faster than theirs (right of the line); whisker: 95 % interval; red mark: aimed at"
    draw.text((_MARGIN_PX, _MARGIN_PX + 16), note, fill=_PALE, font=font)
    if not found["quotable"]:
        draw.text((_MARGIN_PX, _MARGIN_PX + 32), "NOT TO BE QUOTED: the machine was busy", fill=_RED, font=font)
    values = [v for row in rows.values() for v in (row["value"], *row["ci95"], row["aim"] or 1.0)]
    scale = _Scale(min(1.0, *values), max(1.0, *values)) if rows else _Scale(0.5, 2.0)
    top = _MARGIN_PX + _HEAD_PX
    for i, (name, row) in enumerate(rows.items()):
        _draw_row(draw, font, top + i * _ROW_PX, name, row, scale)
    draw.line((scale.x(1.0), top - 4, scale.x(1.0), top + _ROW_PX * len(rows)), fill=_INK)
    return image


class _Scale:
    """From ratios to pixels, logarithmic, with a little room at both ends."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = math.log(low) - 0.1, math.log(high) + 0.1

    def x(self, ratio: float) -> float:
        room = _WIDTH_PX - 2 * _MARGIN_PX - _NAME_PX - _VALUE_PX
        return _MARGIN_PX + _NAME_PX + room * (math.log(ratio) - self._low) / (self._high - self._low)


def _draw_row(draw: ImageDraw.ImageDraw, font: Any, y: float, name: str, row: Mapping[str, Any], scale: _Scale) -> None:
    draw.text((_MARGIN_PX, y), name, fill=_INK, font=font)
    ends = sorted((scale.x(1.0), scale.x(row["value"])))
    draw.rectangle((ends[0], y, ends[1], y + _BAR_PX), fill=_FASTER if row["value"] >= 1 else _SLOWER)
    low, high = (scale.x(v) for v in row["ci95"])
    draw.line((low, y + _BAR_PX / 2, high, y + _BAR_PX / 2), fill=_INK)
    for x in (low, high):
        draw.line((x, y + 3, x, y + _BAR_PX - 3), fill=_INK)
    text = f"{row['value']:.2f}"
    if row["aim"] is not None:
        aim = scale.x(row["aim"])
        draw.line((aim, y - 2, aim, y + _BAR_PX + 2), fill=_AIM, width=2)
        text += f" (aim {row['aim']:g})"
    draw.text((_WIDTH_PX - _MARGIN_PX - _VALUE_PX + 8, y), text, fill=_PALE, font=font)
