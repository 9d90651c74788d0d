"""What a job tells while it waits and is drawn, in the order in which it happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mgcc_kiosk.errors import ApiError
from mgcc_runtime.layout import Box
from mgcc_runtime.results import Note


@dataclass(frozen=True)
class Queued:
    position: int  # jobs before it, the running one too
    estimate_ms: float | None  # until it is done; None before anything was drawn


@dataclass(frozen=True)
class Reading:
    """The worker has begun."""

    estimate_ms: float | None


@dataclass(frozen=True)
class TextAdded:
    delta: str


@dataclass(frozen=True)
class BoxesFound:
    picture: int  # from 0 to n - 1
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class StepDone:
    picture: int
    step: int  # 1 to steps
    steps: int
    image: bytes | None  # a preview, encoded


@dataclass(frozen=True)
class Encoded:
    """A picture as a file."""

    data: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True)
class DrawnPicture:
    seed: int
    boxes: tuple[Box, ...]
    file: Encoded


@dataclass(frozen=True)
class Drawn:
    """All that a job gives; of a turn that is answered in words alone it has no pictures."""

    pictures: tuple[DrawnPicture, ...]
    notes: tuple[Note, ...]
    text: str
    text_tokens: int
    timings_ms: dict[str, float]  # of all pictures together
    turn: int | None = None  # of a chat


@dataclass(frozen=True)
class Finished:
    drawn: Drawn


@dataclass(frozen=True)
class Failed:
    error: ApiError


@dataclass(frozen=True)
class Cancelled:
    pass


Progress: TypeAlias = "Queued | Reading | TextAdded | BoxesFound | StepDone"
End: TypeAlias = "Finished | Failed | Cancelled"
JobEvent: TypeAlias = "Progress | End"
