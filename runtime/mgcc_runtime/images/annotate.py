"""Boxes and labels drawn on an image."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mgcc_runtime.layout import Box

COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")


def annotate(image: Image.Image, boxes: Sequence[Box], scale: int = 1) -> Image.Image:
    """A copy of the image, `scale` times as large, with each box outlined and named."""
    size = (image.width * scale, image.height * scale)
    canvas = image.convert("RGB").resize(size, Image.Resampling.NEAREST if scale > 1 else None)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=max(10, size[1] // 24))
    for i, box in enumerate(boxes):
        colour = COLOURS[i % len(COLOURS)]
        left, top, right, bottom = (v * scale for v in box.xyxy)
        draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=max(1, scale))
        text = f"{box.label} {box.score:.2f}" if box.score < 1 else box.label
        width, height = _text_size(draw, text, font)
        # above the box where there is room, else just inside it
        x = max(0.0, min(left, size[0] - width))
        y = top - height if top >= height else top
        draw.rectangle((x, y, x + width, y + height), fill=colour)
        draw.text((x + 1, y), text, fill="white", font=font)
    return canvas


def _text_size(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> tuple[float, float]:
    _, _, right, bottom = draw.textbbox((0, 0), text, font=font)
    return right + 2, bottom + 2
