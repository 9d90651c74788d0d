"""Reads a picture: which known objects are where, and before which background.

Nothing of the system that drew it is used, only StoryWorld's art: templates propose (`templates`), and each proposal
is then compared with the picture at full resolution. It counts if both the sprite's inner pattern and its outline
against the background are there: a blob of the right colour has no pattern, a pattern without the shape no outline.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mgcc_benchmarks.storybench.templates import (
    COARSE_SIZES_PX,
    MIN_CONTRAST,
    REDUCTION,
    Floats,
    match_maps,
    soften,
    template_bank,
)
from mgcc_ref.story.world.scene import IMAGE_PX, MAX_OBJECT_PX, MIN_OBJECT_PX, Background, Box, backdrop, overlap
from mgcc_ref.story.world.sprites import sprite

#: Objects of true pictures lie above 0.87 and 0.91, after the autoencoder above 0.69 and 0.90. Blobs of the right
#: colours in the right silhouette, and sprites blurred past recognition, stay below one of the two.
MIN_PATTERN = 0.7
MIN_OUTLINE = 0.75
_PROPOSAL_MATCH = 0.35  # of the coarse maps
_PROPOSALS = 96
_REFINED = 24  # of the proposals: those that agree best at full resolution
_PROPOSALS_A_LABEL = 4
_SAME_PLACE_PX = 8  # proposals of one label nearer than this are one
_MAX_SHARED = 0.25  # of the smaller box: of two readings that share more, the better one is kept
SOFT_PX = 3  # of background around an outline
_ROUNDS = 4
_HOPELESS = 0.3  # a match below this has no object near by
_FLAT = 1e-6


@dataclass(frozen=True)
class ReadObject:
    """An object found in a picture. Both matches are correlations, at most 1."""

    label: str
    box: Box
    pattern: float  # the sprite's inside, each colour channel about its own mean
    outline: float  # the difference from the background, around and in the sprite

    @property
    def match(self) -> float:
        return self.pattern + self.outline


@dataclass(frozen=True)
class Reading:
    """The content of a picture; `background` is the nearest of the known ones."""

    objects: tuple[ReadObject, ...]
    background: Background


@dataclass(frozen=True)
class Placing:
    """A sprite at a place, in pixels."""

    label: str
    side: int
    left: int
    top: int

    def resized(self, side: int) -> Placing:
        """The same centre with another longer side."""
        old, new = sprite(self.label, self.side).shape, sprite(self.label, side).shape
        return Placing(
            self.label, side, self.left + round((old[1] - new[1]) / 2), self.top + round((old[0] - new[0]) / 2)
        )

    def moved(self, dx: int, dy: int) -> Placing:
        return Placing(self.label, self.side, self.left + dx, self.top + dy)

    @property
    def box(self) -> Box:
        height, width = sprite(self.label, self.side).shape[:2]
        corners = (self.left, self.top, self.left + width, self.top + height)
        x1, y1, x2, y2 = (min(max(v / IMAGE_PX, 0.0), 1.0) for v in corners)
        return x1, y1, x2, y2


def to_picture(image: Image.Image) -> Floats:
    """A drawn image as the reader takes it: (128, 128, 3) float32 in [0, 1], scaled if it has another size."""
    rgb = image.convert("RGB")
    if rgb.size != (IMAGE_PX, IMAGE_PX):
        rgb = rgb.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BICUBIC)
    return np.asarray(rgb, dtype=np.float32) / 255.0


def read_picture(picture: Floats) -> Reading:
    """Find objects and background in a picture of `to_picture`'s form."""
    background = nearest_background(picture)
    soft, behind = soften(picture), soft_backdrop(background)
    proposals = sorted(_propose(match_maps(soft)), key=lambda placing: -judge(soft, behind, placing).match)
    found = [_refine(soft, behind, placing) for placing in proposals[:_REFINED]]
    kept: list[ReadObject] = []
    for item in sorted(found, key=lambda item: -item.match):
        sound = item.pattern >= MIN_PATTERN and item.outline >= MIN_OUTLINE
        if sound and all(overlap(item.box, other.box) <= _MAX_SHARED for other in kept):
            kept.append(item)
    return Reading(tuple(kept), background)


def nearest_background(picture: Floats) -> Background:
    """The background nearest to most of the picture; differences are capped, since objects cover the rest."""
    small = picture[::2, ::2]
    distance = {b: np.minimum(np.abs(small - backdrop(b)[::2, ::2]).sum(axis=-1), 0.3).mean() for b in Background}
    return min(distance, key=lambda b: float(distance[b]))


def _propose(maps: Floats) -> list[Placing]:
    """The best matches of each label, the best of all first."""
    bank, sizes = template_bank(), len(COARSE_SIZES_PX)
    found: list[tuple[float, Placing]] = []
    reach = _SAME_PLACE_PX // REDUCTION
    for i, label in enumerate(bank.labels):
        own = maps[i * sizes : (i + 1) * sizes].copy()
        for _ in range(_PROPOSALS_A_LABEL):
            size, top, left = np.unravel_index(int(own.argmax()), own.shape)
            match = float(own[size, top, left])
            if match < _PROPOSAL_MATCH:
                break
            found.append((match, Placing(label, COARSE_SIZES_PX[size], int(left) * REDUCTION, int(top) * REDUCTION)))
            for s in range(sizes):  # the same object at other sizes has its corner elsewhere, its centre here
                t = i * sizes + s
                y = top + (bank.heights[i * sizes + size] - bank.heights[t]) // 2
                x = left + (bank.widths[i * sizes + size] - bank.widths[t]) // 2
                own[s, max(0, y - reach) : max(0, y + reach + 1), max(0, x - reach) : max(0, x + reach + 1)] = -1
    found.sort(key=lambda pair: -pair[0])
    return [placing for _, placing in found[:_PROPOSALS]]


def _refine(picture: Floats, behind: Floats, placing: Placing) -> ReadObject:
    """Move and resize by a pixel or two, as long as the match gets better."""
    best = judge(picture, behind, placing)
    for _ in range(_ROUNDS):
        start = placing
        near = [start.moved(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy]
        sides = (start.side + d for d in (-2, -1, 1, 2))
        near += [start.resized(side) for side in sides if MIN_OBJECT_PX - 2 <= side <= MAX_OBJECT_PX + 4]
        for candidate in near:
            found = judge(picture, behind, candidate)
            if found.match > best.match:
                placing, best = candidate, found
        if placing is start or min(best.pattern, best.outline) < _HOPELESS:
            break
    return best


def judge(picture: Floats, behind: Floats, placing: Placing) -> ReadObject:
    """How well picture and background, both softened, agree with the sprite at this very place."""
    art, y1, x1 = soft_sprite(placing.label, placing.side), placing.top - SOFT_PX, placing.left - SOFT_PX
    y2, x2 = y1 + art.shape[0], x1 + art.shape[1]
    art = art[max(0, -y1) : IMAGE_PX - y1, max(0, -x1) : IMAGE_PX - x1]  # what sticks out is cut
    region, ground = picture[max(0, y1) : y2, max(0, x1) : x2], behind[max(0, y1) : y2, max(0, x1) : x2]
    alpha = art[..., 3:]
    wanted = art[..., :3] - alpha * ground  # the difference that the sprite makes
    seen = region - ground
    weight = np.maximum(2 * alpha - 1, 0)
    total = float(weight.sum())
    if total < 1:
        return ReadObject(placing.label, placing.box, -1.0, -1.0)
    expected = wanted + ground
    about = region - (weight * region).sum(axis=(0, 1)) / total
    centred = expected - (weight * expected).sum(axis=(0, 1)) / total
    contrast = max(float((weight * about * about).sum()), MIN_CONTRAST**2 * total)
    pattern = float((weight * about * centred).sum()) / np.sqrt(contrast * float((weight * centred * centred).sum()))
    power = float((seen * seen).sum()) * float((wanted * wanted).sum())
    outline = float((seen * wanted).sum()) / np.sqrt(max(power, _FLAT))
    return ReadObject(placing.label, placing.box, float(pattern), float(outline))


@functools.cache
def soft_sprite(label: str, side: int) -> Floats:
    """The sprite blurred, with SOFT_PX more on every side: (h + 2 SOFT_PX, w + 2 SOFT_PX, 4), premultiplied."""
    art = np.pad(sprite(label, side), ((SOFT_PX, SOFT_PX), (SOFT_PX, SOFT_PX), (0, 0)))
    return soften(art)


@functools.cache
def soft_backdrop(background: Background) -> Floats:
    return soften(backdrop(background))
