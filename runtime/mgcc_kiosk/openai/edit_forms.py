"""The form of `/v1/images/edits`: pictures in order, then the text that goes on from them."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from mgcc_kiosk.errors import invalid
from mgcc_kiosk.settings import Limits
from mgcc_kiosk.wire import fields
from mgcc_kiosk.wire.bodies import media_type, read_json_object
from mgcc_kiosk.wire.forms import Form, read_form
from mgcc_kiosk.wire.pictures_in import from_bytes, from_data_url
from mgcc_runtime.prompt import Part

_NUMBERS = ("n", "seed", "steps", "words", "partial_images", "output_compression")
_FLAGS = {"true": True, "false": False}


async def edit_of(request: Request, limits: Limits) -> tuple[dict[str, Any], list[Part]]:
    """Its fields as a JSON body would have them, and its parts; ApiError."""
    if media_type(request) == "application/json":
        body = await read_json_object(request, limits)
        parts = await run_in_threadpool(_parts_of_json, body, limits)
    else:
        form = await read_form(request, limits)
        body = _fields_of(form)
        parts = await run_in_threadpool(_parts_of_form, form, limits)
    if body.get("mask") is not None:
        raise _no_mask()
    return body, [*parts, fields.text(body, "prompt")]


def _parts_of_form(form: Form, limits: Limits) -> list[Part]:
    """One picture comes as `image`, several as `image[]`, or `image[0]` and so on from other clients."""
    parts: list[Part] = []
    for name, data in form.files:
        if name == "mask":
            raise _no_mask()
        if name.partition("[")[0] != "image":
            raise invalid(f"{name[:60]!r} is no file here, expected image or image[]; rename it", name[:60])
        parts.append(from_bytes(data, limits, f"image {len(parts) + 1}"))
    if not parts:
        raise invalid("the form has no picture, expected image or image[]; add one", "image")
    return parts


def _parts_of_json(body: dict[str, Any], limits: Limits) -> list[Part]:
    images = fields.items(body, "images")
    urls = [image.get("image_url") if isinstance(image, dict) else image for image in images]
    return [from_data_url(url, limits, f"image {number}") for number, url in enumerate(urls, 1)]


def _fields_of(form: Form) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in form.fields:
        if name.startswith("boxes["):
            raise invalid(
                "boxes came as single fields, of which nobody can tell which box each belongs to; send one JSON text, "
                "extra_body={'boxes': json.dumps(boxes)}", "boxes",
            )  # fmt: skip
        found[name] = _value(name, value)
    return found


def _value(name: str, text: str) -> Any:
    """A form has texts alone."""
    if name in _NUMBERS and text.lstrip("-").isdecimal():
        return int(text)
    if name == "guidance":
        try:
            return float(text)
        except ValueError:
            return text  # refused by its name where it is read
    return _FLAGS.get(text, text) if name == "stream" else text


def _no_mask() -> Exception:
    return invalid("mask is not taken: boxes say where things stand here; leave it out, and give boxes", "mask")
