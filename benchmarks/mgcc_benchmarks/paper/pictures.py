"""Opening pictures of the data by the protocol."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from mgcc_benchmarks.paper.protocol import Fit, Protocol, Turn
from mgcc_runtime.errors import ImageError
from mgcc_runtime.images.conversion import load_image

SQUASHED_PX = 224


def open_picture(path: Path, protocol: Protocol) -> Image.Image:
    """A picture of the data as RGB, turned and squashed as the protocol says. ImageError if it cannot be used."""
    if protocol.turn is Turn.EXIF:
        return _squashed(load_image(path), protocol)
    try:
        with Image.open(path) as stored:
            stored.load()
            return _squashed(stored, protocol).convert("RGB")  # GILL's order, which matters for indexed colours
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: a broken PNG
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImageError(f"picture {path} cannot be read ({reason}); copy it again") from None


def _squashed(image: Image.Image, protocol: Protocol) -> Image.Image:
    return image.resize((SQUASHED_PX, SQUASHED_PX)) if protocol.fit is Fit.SQUASH else image
