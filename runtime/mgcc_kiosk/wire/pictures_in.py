"""Pictures that come in: as data URLs or files of a form, opened within limits. No address is ever fetched."""

from __future__ import annotations

import base64
import binascii
import io

from PIL import Image

from mgcc_kiosk.errors import ApiError, Code, invalid
from mgcc_kiosk.settings import Limits
from mgcc_runtime.errors import MgccError
from mgcc_runtime.images.borrowed import open_image
from mgcc_runtime.images.conversion import load_image

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "MPO")


def from_data_url(url: object, limits: Limits, name: str) -> Image.Image:
    """The picture of `data:image/...;base64,...`; ApiError for anything else, and for what links to elsewhere."""
    if not isinstance(url, str) or not url.startswith("data:"):
        kind = "a link" if isinstance(url, str) and "://" in url[:20] else "no data URL"
        raise invalid(
            f"{name} is {kind}, expected the picture itself as data:image/png;base64,...; nothing is fetched here", name
        )
    head, _, content = url.partition(",")
    if not head.endswith(";base64"):
        raise invalid(f"{name} is a data URL without base64, expected data:image/png;base64,...; encode it so", name)
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"{name} is not sound base64; encode the picture again", name) from None
    return from_bytes(data, limits, name)


def from_bytes(data: bytes, limits: Limits, name: str) -> Image.Image:
    """The picture as RGB; ApiError where it is none, is damaged, or has too many pixels."""
    try:
        opened = open_image(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise _too_large(name, limits) from None
    except Exception:  # noqa: BLE001 (Pillow's openers raise about anything on what is no picture)
        raise invalid(f"{name} is no picture that can be read, expected PNG, JPEG, WebP, GIF or BMP", name) from None
    with opened:
        if opened.format not in _FORMATS:
            raise invalid(f"{name} is {opened.format}, expected PNG, JPEG, WebP, GIF or BMP; convert it", name)
        if opened.width * opened.height > limits.pixels:
            raise _too_large(name, limits)
        try:
            return load_image(opened)
        except MgccError as error:
            raise invalid(f"{name}: {error}", name) from None


def _too_large(name: str, limits: Limits) -> ApiError:
    return ApiError(
        Code.IMAGE_TOO_LARGE,
        f"{name} has more than the {limits.megapixels:g} million pixels that are taken; scale it down",
        param=name,
    )  # fmt: skip
