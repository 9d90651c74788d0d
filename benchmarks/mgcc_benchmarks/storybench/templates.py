"""Every sprite at every size as a template, and how well each matches at every place of a picture.

The match is the normalised cross-correlation under the sprite's own silhouette, each colour channel about its own
mean: a blob of the sprite's very colour has none of its pattern and scores 0. It is computed for all places at once
by FFT, at half the resolution.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mgcc_ref.story.world.scene import IMAGE_PX
from mgcc_ref.story.world.sprites import LABELS, sprite

REDUCTION = 2
COARSE_PX = IMAGE_PX // REDUCTION
#: Longer side in pixels: 26 to 62 in steps of about 7 %, a little beyond what scenes hold.
COARSE_SIZES_PX = (26, 28, 30, 32, 34, 37, 40, 43, 46, 50, 54, 58, 62)
MIN_CONTRAST = 0.04  # of a picture under a silhouette, so that a sky's gradient is not blown up to a pattern
SOFTNESS_PX = 1.0

Floats = NDArray[np.float32]
_Spectrum = NDArray[np.complex64]


@dataclass(frozen=True)
class TemplateBank:
    """Spectra of all templates, T = labels x sizes; sizes run fastest."""

    labels: tuple[str, ...]
    pattern: _Spectrum  # (T, 3, F, F'): weight x (sprite - its mean), conjugate
    weight: _Spectrum  # (T, F, F'): 1 well inside the silhouette, 0 outside; conjugate
    weight_sum: Floats  # (T,)
    pattern_norm: Floats  # (T,)
    heights: NDArray[np.int64]  # (T,) at half resolution
    widths: NDArray[np.int64]

    @property
    def sizes(self) -> int:
        return len(COARSE_SIZES_PX)


def reduce_by_area(image: Floats) -> Floats:
    """(H, W, C) -> (H/2, W/2, C), each pixel the mean of four."""
    height, width, channels = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, channels).mean(axis=(1, 3))


def soften(image: Floats) -> Floats:
    """A Gaussian blur of (H, W, C), so that objects drawn a little soft or between pixels are still read."""
    blurred: Floats = gaussian_filter(image, (SOFTNESS_PX, SOFTNESS_PX, 0), mode="nearest")
    return blurred


def coarse_sprite(label: str, long_side_px: int) -> Floats:
    """The blurred sprite at half resolution: (h, w, 4), premultiplied, padded at right and bottom to whole pixels."""
    art = soften(np.pad(sprite(label, long_side_px), ((2, 2), (2, 2), (0, 0))))[2:-2, 2:-2]
    height, width = art.shape[:2]
    return reduce_by_area(np.pad(art, ((0, height % 2), (0, width % 2), (0, 0))))


@functools.cache
def template_bank() -> TemplateBank:
    """All labels at all sizes; made once a process."""
    count = len(LABELS) * len(COARSE_SIZES_PX)
    pattern = np.zeros((count, 3, COARSE_PX, COARSE_PX), np.float32)
    weight = np.zeros((count, COARSE_PX, COARSE_PX), np.float32)
    norm = np.zeros(count, np.float32)
    heights, widths = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for t in range(count):
        art = coarse_sprite(LABELS[t // len(COARSE_SIZES_PX)], COARSE_SIZES_PX[t % len(COARSE_SIZES_PX)])
        alpha = art[..., 3:]
        inside = np.maximum(2 * alpha - 1, 0)  # the blurred edge is half background
        colour = art[..., :3] / np.maximum(alpha, 1e-3)
        about = colour - (inside * colour).sum(axis=(0, 1)) / inside.sum()
        heights[t], widths[t] = height, width = alpha.shape[:2]
        weight[t, :height, :width] = inside[..., 0]
        pattern[t, :, :height, :width] = (inside * about).transpose(2, 0, 1)
        norm[t] = np.sqrt((inside * about * about).sum())
    return TemplateBank(
        labels=LABELS,
        pattern=np.conj(scipy.fft.rfft2(pattern)),
        weight=np.conj(scipy.fft.rfft2(weight)),
        weight_sum=weight.sum(axis=(1, 2)),
        pattern_norm=norm,
        heights=heights,
        widths=widths,
    )


def match_maps(soft: Floats) -> Floats:
    """Match of every template at every place: (T, 64, 64) in [-1, 1], by the template's upper left corner.

    `soft`: a softened picture, (128, 128, 3) in [0, 1]. Places where the template would leave the picture hold -1.
    """
    bank, small = template_bank(), reduce_by_area(soft).transpose(2, 0, 1)
    spectrum = scipy.fft.rfft2(small)
    square = scipy.fft.rfft2((small * small).sum(axis=0))
    shape = (COARSE_PX, COARSE_PX)
    dot = scipy.fft.irfft2((bank.pattern * spectrum).sum(axis=1), s=shape)
    sums = scipy.fft.irfft2(bank.weight[:, None] * spectrum, s=shape)
    squares = scipy.fft.irfft2(bank.weight * square, s=shape)
    total = bank.weight_sum[:, None, None]
    energy = squares - (sums * sums).sum(axis=1) / total
    contrast = np.sqrt(np.maximum(energy, MIN_CONTRAST**2 * total))
    maps: Floats = (dot / (contrast * bank.pattern_norm[:, None, None])).astype(np.float32)
    places = np.arange(COARSE_PX)
    outside_y = places[None, :, None] > (COARSE_PX - bank.heights)[:, None, None]
    outside_x = places[None, None, :] > (COARSE_PX - bank.widths)[:, None, None]
    maps[outside_y | outside_x] = -1
    return maps
