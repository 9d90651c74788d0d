"""A picture of items: what was shown, the true picture, and the drawn one with the boxes it was drawn from."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from mgcc_benchmarks.storybench.painters import Drawn
from mgcc_ref.story.bench import AnyItem
from mgcc_ref.story.world.scene import Scene, render
from mgcc_runtime import Box
from mgcc_runtime.images.annotate import annotate

PICTURE_PX, SHOWN_PX, TEXT_PX = 256, 96, 460
_MARGIN_PX, _FONT_PX, _LINE_PX, _LINE_CHARACTERS = 12, 13, 17, 66
_INK = "#3a3244"


def contact_sheet(pairs: Iterable[tuple[AnyItem, Drawn]]) -> Image.Image:
    """One item a row: its texts and small images, the truth, the drawing."""
    rows = [_row(item, drawn) for item, drawn in pairs]
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(item: AnyItem, drawn: Drawn) -> Image.Image:
    lines = [line for text in _texts(item, drawn) for line in textwrap.wrap(text, _LINE_CHARACTERS)]
    images = [part for part in item.parts if isinstance(part, Scene)]
    words_px = _LINE_PX * (len(lines) + 1)
    height = max(PICTURE_PX + _LINE_PX, words_px + (SHOWN_PX if images else 0)) + 2 * _MARGIN_PX
    width = TEXT_PX + 2 * (PICTURE_PX + _MARGIN_PX) + _MARGIN_PX
    row = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(row), ImageFont.load_default(size=_FONT_PX)
    for i, line in enumerate(lines):
        pen.text((_MARGIN_PX, _MARGIN_PX + i * _LINE_PX), line, fill=_INK, font=font)
    for i, scene in enumerate(images):
        small = Image.fromarray(render(scene)).resize((SHOWN_PX, SHOWN_PX), Image.Resampling.LANCZOS)
        row.paste(small, (_MARGIN_PX + i * (SHOWN_PX + 8), _MARGIN_PX + words_px))
    size = (PICTURE_PX, PICTURE_PX)
    truth = Image.fromarray(render(item.target)).resize(size, Image.Resampling.NEAREST)
    for i, (heading, picture) in enumerate((("truth", truth), ("drawn", _with_boxes(drawn).resize(size)))):
        left = TEXT_PX + i * (PICTURE_PX + _MARGIN_PX)
        pen.text((left, _MARGIN_PX), heading, fill=_INK, font=font)
        row.paste(picture, (left, _MARGIN_PX + _LINE_PX))
    return row


def _texts(item: AnyItem, drawn: Drawn) -> list[str]:
    """The item's texts under its title, and the text that was written."""
    told = [item.title, *item.texts]
    return [*told, f"It says: {drawn.text}"] if drawn.text else told


def _with_boxes(drawn: Drawn) -> Image.Image:
    side = drawn.image.width
    boxes = [Box(label, (x1 * side, y1 * side, x2 * side, y2 * side)) for label, (x1, y1, x2, y2) in drawn.boxes]
    return annotate(drawn.image, boxes, scale=max(1, PICTURE_PX // side))
