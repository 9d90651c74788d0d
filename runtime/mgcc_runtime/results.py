"""What a request gives: typed results and the events of a stream."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

from mgcc_runtime.layout import Box

if TYPE_CHECKING:
    from mgcc_runtime.scene import Scene


@dataclass(frozen=True)
class TextDelta:
    """More of the answer's text, to be appended to what came before."""

    text: str


@dataclass(frozen=True)
class BoxesReady:
    """The layout of the image to come."""

    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class StepPreview:
    """One denoising step is done; `image` is a preview where one was asked for."""

    step: int  # 1 to steps
    steps: int
    image: Image.Image | None


class NoteCode(str, enum.Enum):
    """What a program can tell a note by."""

    NOTHING_TO_PLACE = "nothing-to-place"
    UNKNOWN_THING = "unknown-thing"  # a word asks for what the bundle has no label for
    TOO_MANY = "too-many"  # more things are asked for than are in the picture
    CONTRADICTION = "contradiction"  # places of one thing exclude each other


@dataclass(frozen=True)
class Note:
    """What is no error, but good to know of a result."""

    code: NoteCode
    text: str  # one sentence for people
    thing: str = ""  # the noun or label that it is about, where it is about one

    def to_json(self) -> dict[str, str]:
        return {"code": self.code.value, "text": self.text, **({"thing": self.thing} if self.thing else {})}


NOTHING_TO_PLACE = Note(
    NoteCode.NOTHING_TO_PLACE, "nothing was found to place in the picture, so it shows the bare background"
)


@dataclass(frozen=True)
class Result:
    """A finished request."""

    image: Image.Image
    text: str
    boxes: tuple[Box, ...]
    timings: dict[str, float]  # milliseconds by stage, and "total"
    seed: int
    text_tokens: tuple[int, ...]
    scene: Scene = field(repr=False, compare=False)  # for `Pipeline.redraw`
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class ImageReady:
    """The last event of a stream: the image and everything else."""

    result: Result


@dataclass(frozen=True)
class Reply:
    """An answer in words alone, to a turn that asked for no picture."""

    text: str
    timings: dict[str, float]  # milliseconds by stage, and "total"
    seed: int
    text_tokens: tuple[int, ...]


@dataclass(frozen=True)
class ReplyReady:
    """The last event of a turn that is not drawn."""

    reply: Reply


Event: TypeAlias = "TextDelta | BoxesReady | StepPreview | ImageReady | ReplyReady"
