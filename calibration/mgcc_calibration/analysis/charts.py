"""Pictures of what quantisation does: layers against their error, and images side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image, ImageDraw, ImageFont

from mgcc_calibration.analysis.sensitivity import LayerError
from mgcc_calibration.graphs.edit import Array

_INT8, _KEPT = "tab:blue", "tab:orange"
_ROW_PX, _MARGIN_PX, _FONT_PX, _INK = 16, 12, 11, (30, 30, 30)  # of the sheet of images
_AMPLIFIED = 4  # differences between images are too small to be seen as they are


def error_chart(errors: Sequence[LayerError], kept: Mapping[str, str], title: str) -> Figure:
    """One bar a layer, the worst on top, on a logarithmic axis; layers kept in higher precision in another colour."""
    shown = sorted(errors, key=lambda e: (-e.error, e.layer))
    figure = Figure(figsize=(8, 1.2 + 0.16 * len(shown)), layout="constrained")
    ax = figure.subplots()
    values = [max(entry.error, 1e-9) for entry in shown]
    bars = ax.barh(range(len(shown)), values, color=[_KEPT if e.layer in kept else _INT8 for e in shown])
    ax.bar_label(bars, [f"{entry.error:.1e}" for entry in shown], padding=3, fontsize=6)
    ax.set_xscale("log")
    ax.set_yticks(range(len(shown)), [_short(entry.layer) for entry in shown], fontsize=6)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.margins(x=0.15)
    ax.grid(axis="x", alpha=0.4)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("relative error of the stage's output with this layer alone in int8", fontsize=8)
    ax.set_title(title, fontsize=9, loc="left")
    ax.legend(
        handles=[Patch(color=_INT8, label="int8"), Patch(color=_KEPT, label="kept in higher precision")], fontsize=7
    )
    return figure


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
