"""Images in and out: opening what a user gives, and the vision encoder's and the decoder's pixel formats."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mgcc_runtime.bundle.manifest import LinearPreview, Vision
from mgcc_runtime.errors import ImageError
from mgcc_runtime.files import write_atomically
from mgcc_runtime.images.borrowed import open_image, take_over
from mgcc_runtime.images.pixels import settle_transparency, to_rgb

_LOG = logging.getLogger(__name__)

ImageSource: TypeAlias = "Image.Image | os.PathLike[str]"

MAX_PIXELS = 50_000_000  # decoded, 50 megapixels are 200 MB; no vision encoder sees more than 0.2 of them
MAX_ASPECT = 32  # the short side is scaled to the encoder's size, so a long strip would be scaled to gigapixels


def load_image(source: ImageSource) -> Image.Image:
    """An image as RGB: first frame, turned as its EXIF says, alpha over white. ImageError if it cannot be used.

    The result shares nothing with `source`, which stays as it is: other threads may use it meanwhile.
    """
    name = f"image of mode {source.mode}" if isinstance(source, Image.Image) else f"image {os.fspath(source)}"
    try:
        # Pillow reads an opened image's pixels only when they are wanted, so a given one may turn out broken, too
        return _load_given(source, name) if isinstance(source, Image.Image) else _load_file(Path(source), name)
    except Image.DecompressionBombError:
        raise ImageError(f"{name} has far more than {MAX_PIXELS:,} pixels; scale it down first") from None
    except ImageError:
        raise
    # Pillow's decoders raise about anything on damaged data, struct.error and IndexError included
    except Exception as error:  # noqa: BLE001
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ImageError(f"{name} cannot be read ({text}); give a sound PNG, JPEG, WebP, GIF or BMP image") from None


def _load_given(image: Image.Image, name: str) -> Image.Image:
    _check_size(image.size, name)
    with take_over(image) as own:
        return _load_own(own, name)


def _load_file(path: Path, name: str) -> Image.Image:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ImageError(f"{name} {kind}; give the path of a PNG, JPEG, WebP, GIF or BMP file")
    with open_image(path) as own:
        return _load_own(own, name)


def _load_own(own: Image.Image, name: str) -> Image.Image:
    _check_size(own.size, name)  # also where another frame than the caller's is read
    settle_transparency(own)
    own.load()
    try:
        ImageOps.exif_transpose(own, in_place=True)
    except Exception:  # noqa: BLE001 (what Pillow raises on damaged EXIF data, of PNG and WebP; those of JPEG it ignores)
        _LOG.debug("%s has EXIF data that cannot be read", name)
    return to_rgb(own, name)


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if not width or not height:
        raise ImageError(f"{name} is {width}x{height} pixels, expected at least 1x1; give another image")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} is {width}x{height} pixels, at most {MAX_PIXELS:,} are taken; scale it down first")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{name} is {width}x{height} pixels, at most {MAX_ASPECT}:1 is taken; crop it first")


def fit_square(image: Image.Image, size_px: int) -> Image.Image:
    """Scale the short side to `size_px` (bicubic) and cut the centre square; an image of that size stays as it is."""
    width, height = image.size
    if (width, height) == (size_px, size_px):
        return image
    scale = size_px / min(width, height)
    wide, high = max(size_px, round(width * scale)), max(size_px, round(height * scale))
    image = image.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - size_px) // 2, (high - size_px) // 2
    return image.crop((left, top, left + size_px, top + size_px))


def pixel_values(images: Sequence[Image.Image], size_px: int, vision: Vision) -> NDArray[np.float32]:
    """RGB images -> (B, 3, size_px, size_px) float32, normalised as the manifest says."""
    pixels = np.stack([np.asarray(fit_square(image, size_px), np.float32) for image in images]) / np.float32(255)
    normalised = (pixels - np.array(vision.mean, np.float32)) / np.array(vision.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), np.float32)


def to_image(decoded: NDArray[np.float32]) -> Image.Image:
    """The decoder's (1, 3, H, W) in about [-1, 1] -> RGB image."""
    pixels = np.clip((decoded[0].transpose(1, 2, 0) + 1) * 127.5, 0, 255)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def likeness(latents: NDArray[np.float32], preview: LinearPreview, size_px: int) -> Image.Image:
    """Latents (1, C, h, w) by the bundle's linear preview -> RGB image of the picture's size, blurred."""
    weights, bias = np.array(preview.weights, np.float32), np.array(preview.bias, np.float32)
    colours = np.einsum("rc,chw->rhw", weights, latents[0]) + bias[:, None, None]
    return to_image(colours[None]).resize((size_px, size_px), Image.Resampling.BICUBIC)


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG atomically; OutputError if that fails."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
