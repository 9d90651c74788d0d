"""What OpenAI's requests ask for, in the runtime's words: parts, options, size, format, partial images.

Fields of OpenAI's that mean nothing here (`quality`, `style`, `user`) are passed over, as clients send them unasked.
Fields of our own (`boxes`, `grounder`, `seed`, `steps`, `guidance`, `words`) come by the client's `extra_body`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mgcc_kiosk.drawing.encoding import USUAL_QUALITY, Format, Rendering
from mgcc_kiosk.drawing.pictures import Showing
from mgcc_kiosk.endpoints.asked import options_of
from mgcc_kiosk.errors import invalid
from mgcc_kiosk.kiosk import Kiosk
from mgcc_kiosk.wire import fields
from mgcc_runtime import InputError
from mgcc_runtime.reading import parse_json
from mgcc_runtime.request import RequestOptions
from mgcc_runtime.values import shown

MOST_PARTIAL_IMAGES = 3
_LONGEST_SIDE = 2048  # pixels; a picture is drawn in its own size and scaled to what was asked for
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


def model_name(kiosk: Kiosk) -> str:
    """As `/v1/models` lists it; requests may name any, since clients insist on one of theirs."""
    return f"mgcc-{kiosk.pipeline.bundle.manifest.profile}"


def picture_options(kiosk: Kiosk, body: Mapping[str, Any]) -> RequestOptions:
    """Those of our own; ApiError. `boxes` may be a list, or the same as a JSON text, which forms can carry."""
    boxes = body.get("boxes")
    if isinstance(boxes, str) and boxes.lstrip().startswith("["):
        try:
            boxes = parse_json(boxes, "boxes")
        except InputError as error:
            raise invalid(str(error), "boxes") from None
    return options_of(kiosk, {**body, "boxes": boxes})


def showing_of(kiosk: Kiosk, body: Mapping[str, Any], options: RequestOptions, partial_images: int) -> Showing:
    """How pictures and partial images are given; ApiError."""
    n = fields.whole(body, "n", 1, int(kiosk.settings.limits.pictures), 1)
    kind = Format(fields.word(body, "output_format", [kind.value for kind in Format], Format.PNG.value))
    quality = fields.whole(body, "output_compression", 0, 100, USUAL_QUALITY)
    rendering = Rendering(kind, quality, _size(body.get("size")), preview_format=kind)
    steps = options.get("steps") or kiosk.pipeline.bundle.manifest.default_steps
    every = max(1, steps // (partial_images + 1)) if partial_images else 0
    return Showing(n, rendering, kiosk.previews[0], every)


def partial_images_of(body: Mapping[str, Any]) -> int:
    """0 where it is no stream."""
    return fields.whole(body, "partial_images", 0, MOST_PARTIAL_IMAGES, 0) if fields.flag(body, "stream") else 0


def _size(value: object) -> tuple[int, int] | None:
    if value is None or value == "auto":
        return None
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < min(size) <= max(size) <= _LONGEST_SIDE:
        raise invalid(f"size is {shown(value)}, expected auto or WIDTHxHEIGHT of at most {_LONGEST_SIDE} each", "size")
    return size
