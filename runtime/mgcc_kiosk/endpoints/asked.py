"""What a request asks to be drawn, checked before it waits: parts, options, and how the picture is to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from PIL import Image

from mgcc_kiosk.drawing.pictures import Showing
from mgcc_kiosk.errors import ApiError, Code, api_error, invalid
from mgcc_kiosk.kiosk import Kiosk
from mgcc_kiosk.settings import Limits
from mgcc_kiosk.wire import fields
from mgcc_kiosk.wire.pictures_in import from_data_url
from mgcc_runtime import InputError, Preview
from mgcc_runtime.layout import parse_boxes
from mgcc_runtime.options import PREVIEW_EVERY
from mgcc_runtime.prompt import Part
from mgcc_runtime.request import RedrawOptions, RequestOptions, box_mode

_OPTIONS = ("seed", "steps", "guidance", "boxes")
SHOWN_FIELDS = ("n", "preview", "preview_every")
_OF_A_READING = ("words", "grounder")
TURN_FIELDS = ("text", "parts", *_OF_A_READING, *_OPTIONS, *SHOWN_FIELDS)
REDRAW_FIELDS = (*_OPTIONS, *SHOWN_FIELDS)
_NO_PREVIEW = "none"


def parts_of(body: Mapping[str, Any], limits: Limits) -> list[Part]:
    """`text`, or `parts` with a text or a data URL each. Opens pictures, so it is for a thread."""
    if ("text" in body) is ("parts" in body):
        raise invalid("the turn has both text and parts or neither, expected one of them; leave one out", "text")
    if "text" in body:
        return [fields.text(body, "text")]
    given = fields.items(body, "parts")
    if len(given) > limits.parts:
        raise invalid(f"the turn has {len(given)} parts, at most {limits.parts} are taken; send fewer", "parts")
    return [_part(part, number, limits) for number, part in enumerate(given, 1)]


def _part(part: object, number: int, limits: Limits) -> Part:
    name = f"part {number}"
    if not isinstance(part, dict) or len(part) != 1 or not {"text", "image"} & part.keys():
        raise invalid(f'{name} is neither {{"text": ...}} nor {{"image": ...}}; correct it', "parts")
    if "text" in part:
        return fields.text(part, "text")
    return from_data_url(part["image"], limits, name)


def check_parts(kiosk: Kiosk, parts: Sequence[Part]) -> None:
    """What limits, filters and the tokenizer say of them; ApiError."""
    limits = kiosk.settings.limits
    texts = [part for part in parts if isinstance(part, str)]
    if (length := sum(map(len, texts))) > limits.text_chars:
        raise invalid(f"the texts have {length} characters, at most {limits.text_chars} are taken; shorten them")
    if len(parts) > limits.parts:
        raise invalid(f"there are {len(parts)} parts, at most {limits.parts} are taken; send fewer")
    if not kiosk.settings.pictures_taken and any(isinstance(part, Image.Image) for part in parts):
        raise ApiError(Code.INVALID_REQUEST, "pictures are not taken here, expected texts alone; leave them out")
    kiosk.filters.check_texts(texts)
    try:
        kiosk.pipeline.prompts.draft(parts)
    except InputError as error:
        raise api_error(error) from None


def options_of(kiosk: Kiosk, body: Mapping[str, Any]) -> RequestOptions:
    """Those of a new picture, as the runtime takes them; ApiError."""
    options = cast("RequestOptions", _given(body, (*_OPTIONS, *_OF_A_READING)))
    try:
        kiosk.pipeline.request(**options)
    except InputError as error:
        raise api_error(error) from None
    return options


def redraw_options_of(kiosk: Kiosk, body: Mapping[str, Any]) -> RedrawOptions:
    """Those of a picture that is drawn again; ApiError. Labels and ids are looked at once its scene is at hand."""
    options = cast("RedrawOptions", _given(body, _OPTIONS))
    try:
        kiosk.pipeline.request(**cast("RequestOptions", {n: v for n, v in options.items() if n != "boxes"}))
        if "boxes" in options and box_mode(options["boxes"] or ()) is None:
            parse_boxes(options["boxes"], kiosk.pipeline.bundle.manifest.dimensions.image_px)
    except InputError as error:
        raise api_error(error) from None
    return options


def _given(body: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of the fields that have a value, which the runtime checks."""
    return {name: body[name] for name in names if body.get(name) is not None}


def showing_of(kiosk: Kiosk, body: Mapping[str, Any]) -> Showing:
    """How a page is shown its pictures."""
    kinds = kiosk.previews
    words = [*(kind.value for kind in kinds), _NO_PREVIEW]
    preview = fields.word(body, "preview", words, kinds[0].value)
    every = fields.whole(body, "preview_every", PREVIEW_EVERY.least, PREVIEW_EVERY.most, 1)
    n = fields.whole(body, "n", 1, int(kiosk.settings.limits.pictures), 1)
    if preview == _NO_PREVIEW:
        return Showing(pictures=n)
    return Showing(pictures=n, preview=Preview(preview), preview_every=every)
