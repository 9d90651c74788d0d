"""What a request gives: typed results and the events of a stream."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from PIL import Image

from mgcc_runtime.layout import Box


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


@dataclass(frozen=True)
class Note:
    """What is no error, but good to know of a result."""

    code: NoteCode
    text: str  # one sentence for people

    def to_json(self) -> dict[str, str]:
        return {"code": self.code.value, "text": self.text}


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


@dataclass
class Stopwatch:
    """Adds up the time of a request by stage."""

    started_s: float = field(default_factory=time.perf_counter)
    milliseconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start_s = time.perf_counter()
        try:
            yield
        finally:
            spent_ms = (time.perf_counter() - start_s) * 1e3
            self.milliseconds[name] = self.milliseconds.get(name, 0.0) + spent_ms

    def timings(self) -> dict[str, float]:
        """Milliseconds by stage, rounded to microseconds; "total" also holds what is between the stages."""
        total_ms = (time.perf_counter() - self.started_s) * 1e3
        return {name: round(ms, 3) for name, ms in {**self.milliseconds, "total": total_ms}.items()}
