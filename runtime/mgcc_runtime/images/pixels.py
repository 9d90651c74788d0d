"""From any mode that Pillow has to 8-bit RGB: what a picture shows is the same, however it is stored."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mgcc_runtime.errors import ImageError

_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_ONE_TRANSPARENT_VALUE = frozenset({"1", "L", "P", "RGB"})  # modes that Pillow itself makes an alpha channel of it for
_WHITE_8_BITS, _WHITE_16_BITS = 255, 65535
#: Pillow spreads the values of small PNG pixels over 0 to 255, but not the transparent one beside them.
_SPREAD = {"L;2": 85, "L;4": 17}


def settle_transparency(image: Image.Image) -> None:
    """Put what stands for a transparent pixel on the scale of the image's own pixels, and drop what can be none.

    Before the pixels are read: how the file stores them is forgotten then.
    """
    value = image.info.pop("transparency", None)
    tiles = getattr(image, "tile", None) if image.format == "PNG" else None
    stored = tiles[0][3] if tiles else ""  # the mode of the pixels in the file
    if isinstance(value, int) and isinstance(stored, str):
        value *= _SPREAD.get(stored, 1)
    # of 16-bit colours Pillow keeps the upper halves, but of the transparent one the whole
    elif isinstance(value, tuple) and (stored == "RGB;16B" or any(part > _WHITE_8_BITS for part in value)):
        value = tuple(part >> 8 for part in value)
    if value is not None and (image.mode in _ONE_TRANSPARENT_VALUE or image.mode.startswith("I")):
        image.info["transparency"] = value


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """`image`, of settled transparency, as RGB with its alpha over white. `name` is for errors.

    ImageError for floating-point pixels and for integers outside of 16 bits, of which nobody knows what is white.
    """
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels, expected 8 or 16 bits; convert it to PNG first")
    if image.mode.startswith("I"):
        image = _eight_bits(image, name)
    if image.mode == "La":
        image = image.convert("LA")  # the only mode that Pillow converts it to
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return image.convert("RGB")


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """An image of mode I or I;16 as L or LA; Pillow's own conversion would cut it off at 255."""
    values = np.asarray(image)
    white = _WHITE_16_BITS
    if image.mode == "I":
        least, most = int(values.min()), int(values.max())
        if least < 0 or most > _WHITE_16_BITS:
            raise ImageError(
                f"{name} has pixels from {least} to {most}, expected 0 to {_WHITE_16_BITS}; convert it to 8 bits first"
            )
        # files that Pillow opens so hold 16 bits, whereas an array of int32 says nothing: one of a picture in 8 bits
        # has its values, and in 16 bits it would be all but black
        if most <= _WHITE_8_BITS and image.format not in ("PNG", "PPM"):
            white = _WHITE_8_BITS
    grey = Image.fromarray(((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8))
    if (transparent := image.info.get("transparency")) is None:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))))
