"""Scenes of StoryWorld: a background, one to five objects with boxes, and their picture."""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from mgcc_ref.story.world.sprites import LABELS, sprite

IMAGE_PX = 128
MIN_OBJECT_PX = 28
MAX_OBJECT_PX = 60
MAX_OBJECTS = 5
MAX_OVERLAP = 0.12  # of the smaller box: more hides objects from the reader

Box = tuple[float, float, float, float]


class Background(enum.StrEnum):
    MEADOW = "meadow"
    BEACH = "beach"
    NIGHT = "night"
    SNOW = "snow"
    DESERT = "desert"
    ROOM = "room"


class Size(enum.StrEnum):
    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


#: Longer side in pixels, inclusive, of each size word.
SIZE_RANGES_PX = {Size.SMALL: (28, 36), Size.MEDIUM: (38, 48), Size.LARGE: (50, 60)}


@dataclass(frozen=True)
class PlacedObject:
    """One object of a scene; `box` is xyxy in [0, 1], tight around the sprite."""

    label: str
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def long_side_px(self) -> int:
        x1, y1, x2, y2 = self.box
        return round(max(x2 - x1, y2 - y1) * IMAGE_PX)

    @property
    def size(self) -> Size:
        side = self.long_side_px
        return min(SIZE_RANGES_PX, key=lambda s: abs(side - sum(SIZE_RANGES_PX[s]) / 2))


@dataclass(frozen=True)
class Scene:
    background: Background
    objects: tuple[PlacedObject, ...]


def place(label: str, centre: tuple[float, float], long_side_px: int) -> PlacedObject:
    """`label` with its centre as near to `centre` (in [0, 1]) as the picture's edges allow."""
    height, width = sprite(label, long_side_px).shape[:2]
    left = min(max(round(centre[0] * IMAGE_PX - width / 2), 0), IMAGE_PX - width)
    top = min(max(round(centre[1] * IMAGE_PX - height / 2), 0), IMAGE_PX - height)
    box = (left / IMAGE_PX, top / IMAGE_PX, (left + width) / IMAGE_PX, (top + height) / IMAGE_PX)
    return PlacedObject(label, box)


def overlap(a: Box, b: Box) -> float:
    """Intersection area over the area of the smaller box."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / smaller


def fits(candidate: PlacedObject, others: Sequence[PlacedObject]) -> bool:
    return all(overlap(candidate.box, other.box) <= MAX_OVERLAP for other in others)


def random_scene(rng: np.random.Generator, *, max_objects: int = MAX_OBJECTS, repeat_chance: float = 0.15) -> Scene:
    """A scene with 1 to `max_objects` objects at continuous positions and sizes.

    `repeat_chance` is the probability that an object repeats the label of the one before it.
    """
    background = list(Background)[rng.integers(len(Background))]
    count = int(rng.integers(1, max_objects + 1))
    objects: list[PlacedObject] = []
    for _ in range(40 * count):
        if len(objects) == count:
            break
        if objects and rng.random() < repeat_chance:
            label = objects[-1].label
        else:
            label = LABELS[rng.integers(len(LABELS))]
        if sum(o.label == label for o in objects) >= 2:
            continue
        side = int(rng.integers(MIN_OBJECT_PX, MAX_OBJECT_PX + 1))
        candidate = place(label, (float(rng.random()), float(rng.random())), side)
        if fits(candidate, objects):
            objects.append(candidate)
    return Scene(background, tuple(objects))


def render(scene: Scene) -> np.ndarray:
    """The scene's picture: (128, 128, 3) uint8. Later objects lie over earlier ones."""
    canvas = backdrop(scene.background).copy()
    for item in scene.objects:
        art = sprite(item.label, item.long_side_px)
        left, top = round(item.box[0] * IMAGE_PX), round(item.box[1] * IMAGE_PX)
        height, width = art.shape[:2]
        region = canvas[top : top + height, left : left + width]
        region *= 1.0 - art[..., 3:]
        region += art[..., :3]
    return (canvas * 255.0 + 0.5).astype(np.uint8)


@functools.cache
def backdrop(background: Background) -> np.ndarray:
    """The empty background: (128, 128, 3) float32 in [0, 1]. Drawn at four times the size, then reduced."""
    reduced = painted(background, 4 * IMAGE_PX).resize((IMAGE_PX, IMAGE_PX), Image.Resampling.LANCZOS)
    array = np.asarray(reduced, dtype=np.float32) / 255.0
    array.setflags(write=False)
    return array


def painted(background: Background, side_px: int) -> Image.Image:
    """The empty background as a square picture of any size, without smoothed edges."""
    image = Image.new("RGB", (side_px, side_px))
    _PAINTERS[background](ImageDraw.Draw(image), side_px)
    return image


Colour = tuple[int, int, int]


def _gradient(draw: ImageDraw.ImageDraw, side: int, y0: float, y1: float, top: Colour, bottom: Colour) -> None:
    first, last = int(y0 * side), int(y1 * side)
    for y in range(first, last):
        t = (y - first) / max(1, last - first - 1)
        draw.line([(0, y), (side, y)], fill=tuple(round(a + (b - a) * t) for a, b in zip(top, bottom, strict=True)))
    draw.rectangle([0, last, side, side], fill=bottom)  # gaps below the hills must not stay black


def _hill(draw: ImageDraw.ImageDraw, side: int, centre_x: float, top_y: float, width: float, colour: Colour) -> None:
    half = width / 2 * side
    draw.ellipse([centre_x * side - half, top_y * side, centre_x * side + half, top_y * side + 2 * side], fill=colour)


def _meadow(draw: ImageDraw.ImageDraw, side: int) -> None:
    _gradient(draw, side, 0, 0.6, (150, 205, 245), (215, 238, 250))
    _hill(draw, side, 0.2, 0.50, 1.6, (150, 205, 110))
    _hill(draw, side, 0.85, 0.56, 1.8, (125, 190, 90))


def _beach(draw: ImageDraw.ImageDraw, side: int) -> None:
    _gradient(draw, side, 0, 0.42, (175, 225, 245), (225, 243, 248))
    _gradient(draw, side, 0.42, 0.62, (60, 150, 200), (110, 195, 215))
    _gradient(draw, side, 0.62, 1, (245, 222, 165), (232, 200, 135))
    draw.ellipse([-0.3 * side, 0.56 * side, 0.8 * side, 0.72 * side], fill=(245, 222, 165))


def _night(draw: ImageDraw.ImageDraw, side: int) -> None:
    _gradient(draw, side, 0, 0.78, (22, 24, 64), (58, 58, 112))
    for x, y in (
        (0.1, 0.12),
        (0.3, 0.3),
        (0.45, 0.08),
        (0.62, 0.22),
        (0.8, 0.1),
        (0.93, 0.34),
        (0.2, 0.5),
        (0.72, 0.5),
    ):
        draw.ellipse([x * side - 4, y * side - 4, x * side + 4, y * side + 4], fill=(205, 208, 235))
    _hill(draw, side, 0.4, 0.74, 2.6, (32, 50, 58))


def _snow(draw: ImageDraw.ImageDraw, side: int) -> None:
    _gradient(draw, side, 0, 0.6, (178, 198, 222), (222, 232, 242))
    draw.polygon(
        [(0.05 * side, 0.62 * side), (0.32 * side, 0.25 * side), (0.6 * side, 0.62 * side)], fill=(150, 172, 200)
    )
    draw.polygon(
        [(0.45 * side, 0.62 * side), (0.72 * side, 0.32 * side), (1.0 * side, 0.62 * side)], fill=(164, 184, 210)
    )
    _hill(draw, side, 0.3, 0.55, 2.2, (240, 245, 250))
    _hill(draw, side, 0.9, 0.62, 1.8, (228, 236, 246))


def _desert(draw: ImageDraw.ImageDraw, side: int) -> None:
    _gradient(draw, side, 0, 0.6, (250, 190, 120), (253, 228, 180))
    _hill(draw, side, 0.15, 0.54, 1.5, (222, 160, 92))
    _hill(draw, side, 0.8, 0.58, 1.9, (206, 138, 74))


def _room(draw: ImageDraw.ImageDraw, side: int) -> None:
    _gradient(draw, side, 0, 0.68, (236, 220, 226), (228, 208, 218))
    _gradient(draw, side, 0.68, 1, (176, 124, 88), (154, 104, 72))
    draw.rectangle([0, 0.66 * side, side, 0.69 * side], fill=(250, 246, 244))
    draw.rectangle([0.36 * side, 0.12 * side, 0.64 * side, 0.46 * side], fill=(250, 246, 244))
    for x, y in ((0.38, 0.14), (0.51, 0.14), (0.38, 0.3), (0.51, 0.3)):
        draw.rectangle([x * side, y * side, (x + 0.11) * side, (y + 0.14) * side], fill=(176, 214, 236))


_PAINTERS = {
    Background.MEADOW: _meadow,
    Background.BEACH: _beach,
    Background.NIGHT: _night,
    Background.SNOW: _snow,
    Background.DESERT: _desert,
    Background.ROOM: _room,
}
