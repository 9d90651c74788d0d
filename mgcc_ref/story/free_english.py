"""Suite `free`: eighty stories, captions and dialogues in free English, written without sight of any template here.

They are validation: weights may be chosen by them, and nothing is trained on them. A place is a third of the picture's
width and a third of its height; within `BORDER` of the line between two thirds, both count.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from mgcc_ref.story.wording.data import data_file
from mgcc_ref.story.world.layout_words import INSET
from mgcc_ref.story.world.scene import Background, Box, Scene, place, render

_FILE = Path(__file__).with_name("free_english.json")
BORDER = 0.08
_SHOWN_PX = 34  # the longer side of things in the items' own pictures
_ANY = "any"
_THIRDS = MappingProxyType({"left": 0, "centre": 1, "right": 2, "top": 0, "middle": 1, "bottom": 2})


class FreeSetting(enum.StrEnum):
    """The items of one kind, or all."""

    CAPTION = "caption"
    STORY = "story"
    STORY_IMAGE = "story_image"
    DIALOGUE = "dialogue"
    ALL = "all"


@dataclass(frozen=True)
class WantedPlace:
    """A label, and the thirds in which the centre of one of its things has to lie."""

    label: str
    column: str  # left, centre, right, any
    row: str  # top, middle, bottom, any

    @property
    def region(self) -> Box:
        """Where its centre is clearly in them, off their inner edges: xyxy as shares of the picture."""
        (x1, x2), (y1, y2) = _clearly_in(self.column), _clearly_in(self.row)
        return x1, y1, x2, y2

    def holds(self, box: Box) -> bool:
        """Whether the centre of `box`, xyxy as shares of the picture, is there."""
        centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return all(_in_third(at, name) for at, name in zip(centre, (self.column, self.row), strict=True))


def _in_third(at: float, name: str) -> bool:
    if name == _ANY:
        return True
    low = _THIRDS[name] / 3
    return low - BORDER <= at <= low + 1 / 3 + BORDER


def _clearly_in(name: str) -> tuple[float, float]:
    if name == _ANY:
        return 0.0, 1.0
    low = _THIRDS[name] / 3
    return low + INSET if low > 0 else 0.0, low + 1 / 3 - INSET if low < 0.5 else 1.0


@dataclass(frozen=True)
class FreeItem:
    """A picture to draw after the last part."""

    number: int  # its id, and the seed of its noise
    kind: FreeSetting
    parts: tuple[str | Scene, ...]
    wanted: tuple[WantedPlace, ...]
    background: Background | None  # None: left open

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(part for part in self.parts if isinstance(part, str))

    @property
    def title(self) -> str:
        """The item's name for readers."""
        return f"free {self.kind.value}, item {self.number}"

    def inputs(self) -> list[str | Image.Image]:
        """The parts as a request's texts and pictures."""
        return [part if isinstance(part, str) else Image.fromarray(render(part)) for part in self.parts]

    @property
    def target(self) -> Scene:
        """One of many right pictures, as an example for readers."""

        def centre(name: str) -> float:
            return 0.5 if name == _ANY else (_THIRDS[name] + 0.5) / 3

        things = tuple(place(w.label, (centre(w.column), centre(w.row)), _SHOWN_PX) for w in self.wanted)
        return Scene(self.background or Background.MEADOW, things)


@functools.cache
def free_items(setting: FreeSetting = FreeSetting.ALL) -> tuple[FreeItem, ...]:
    """The items of a kind, in the file's order."""
    every = (_item(value) for value in data_file(_FILE)["items"])
    return tuple(item for item in every if setting in (FreeSetting.ALL, item.kind))


def _item(value: dict[str, Any]) -> FreeItem:
    expected = value["expect"]
    return FreeItem(
        number=int(value["id"]),
        kind=FreeSetting(value["kind"]),
        parts=tuple(part["text"] if "text" in part else _scene(part["scene"]) for part in value["parts"]),
        wanted=tuple(WantedPlace(label, *where) for label, where in expected["objects"].items()),
        background=None if expected["background"] is None else Background(expected["background"]),
    )


def _scene(value: dict[str, Any]) -> Scene:
    things = tuple(place(label, (at[0], at[1]), _SHOWN_PX) for label, at in value["objects"].items())
    return Scene(Background(value["background"]), things)
