"""Pictures of what quantisation does: layers against their error, and images side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mgcc_calibration.graph import Array
from mgcc_calibration.sensitivity import LayerError

_ROW_PX, _NAME_PX, _BAR_PX, _MARGIN_PX, _FONT_PX = 16, 260, 460, 12, 11
_INT8, _KEPT, _INK, _GRID = (66, 120, 190), (214, 106, 60), (30, 30, 30), (215, 215, 215)
_AMPLIFIED = 4  # differences between images are too small to be seen as they are


def error_chart(errors: Sequence[LayerError], kept: Mapping[str, str], title: str) -> Image.Image:
    """One bar a layer, the worst on top, on a logarithmic axis; layers kept in higher precision in another colour."""
    shown = sorted(errors, key=lambda e: (-e.error, e.layer))
    values = [max(e.error, 1e-9) for e in shown] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    top = _MARGIN_PX + 3 * _ROW_PX
    size = (_NAME_PX + _BAR_PX + 3 * _MARGIN_PX + 60, top + _ROW_PX * len(shown) + _MARGIN_PX)
    image = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_PX)
    draw.text((_MARGIN_PX, _MARGIN_PX), title, fill=_INK, font=font)
    legend = "relative error of the stage's output with this layer alone in int8; orange: kept in higher precision"
    draw.text((_MARGIN_PX, _MARGIN_PX + _ROW_PX), legend, fill=_INK, font=font)
    left = _NAME_PX + 2 * _MARGIN_PX

    def x_of(value: float) -> float:
        return left + _BAR_PX * (math.log10(max(value, 10.0**low)) - low) / (high - low)

    for decade in range(low, high + 1):
        x = x_of(10.0**decade)
        draw.line((x, top, x, size[1] - _MARGIN_PX), fill=_GRID)
        draw.text((x - 12, top - _ROW_PX), f"1e{decade}", fill=_INK, font=font)
    for row, entry in enumerate(shown):
        y = top + row * _ROW_PX
        draw.text((_MARGIN_PX, y), _short(entry.layer), fill=_INK, font=font)
        end = max(x_of(entry.error), left + 1)
        draw.rectangle((left, y + 2, end, y + _ROW_PX - 4), fill=_KEPT if entry.layer in kept else _INT8)
        draw.text((end + 4, y), f"{entry.error:.1e}", fill=_INK, font=font)
    return image


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"...{name[3 - most :]}"


def side_by_side(exact: Sequence[Array], found: Sequence[Array], names: tuple[str, str]) -> Image.Image:
    """A row an image: as it was, as it is, and the difference four times amplified around grey. All (H, W, 3) uint8."""
    height, width = exact[0].shape[:2]
    font = ImageFont.load_default(_FONT_PX)
    head = _ROW_PX + _MARGIN_PX
    size = (3 * (width + _MARGIN_PX) + _MARGIN_PX, head + len(exact) * (height + _MARGIN_PX))
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for column, name in enumerate((*names, f"difference x{_AMPLIFIED}")):
        draw.text((_MARGIN_PX + column * (width + _MARGIN_PX), _MARGIN_PX // 2), name, fill=_INK, font=font)
    for row, (before, after) in enumerate(zip(exact, found, strict=True)):
        difference = _AMPLIFIED * (after.astype(np.int16) - before.astype(np.int16)) + 128
        cells = (before, after, np.clip(difference, 0, 255).astype(np.uint8))
        for column, cell in enumerate(cells):
            place = (_MARGIN_PX + column * (width + _MARGIN_PX), head + row * (height + _MARGIN_PX))
            image.paste(Image.fromarray(cell), place)
    return image
