"""The common form of all data sets: a caption, its picture, and the boxes of what the caption names."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from mgcc_ref.train.errors import TrainingError

Box = tuple[float, float, float, float]  # left, top, right, bottom in [0, 1] of the picture
Span = tuple[int, int]  # characters: first, and last + 1


class DataError(TrainingError):
    """A data set is not in its official form; the message names the file and the expected form."""


class PictureError(DataError):
    """One picture of a data set is missing or damaged."""


@dataclass(frozen=True)
class Phrase:
    """Something in the picture: its name, its box, and the characters of the caption that name it."""

    text: str
    box: Box
    span: Span | None  # None: the caption does not name it


@dataclass(frozen=True)
class Sample:
    name: str  # of the picture, for messages
    caption: str
    read: Callable[[], bytes]  # the picture's file; OSError
    phrases: tuple[Phrase, ...] = ()
    target: Callable[[], bytes] | None = None  # .npy of the caption's published conditioning

    def picture(self) -> Image.Image:
        """The picture in RGB. PictureError if it is missing or damaged."""
        try:
            with Image.open(io.BytesIO(self.read())) as found:
                return found.convert("RGB")
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "no picture, or a damaged one"
            raise PictureError(f"picture {self.name} cannot be read ({reason}); copy it again") from error

    def conditioning(self, shape: tuple[int, int]) -> np.ndarray | None:
        """The text tower's output stored beside the picture, (N_c, D_c) float32; None if there is none.

        DataError if its shape differs, as that of another text tower.
        """
        if self.target is None:
            return None
        try:
            found = np.load(io.BytesIO(self.target()), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise PictureError(f"the target of {self.name} cannot be read ({error}); make it again") from error
        if found.ndim != 2 or found.shape[0] < shape[0] or found.shape[1] != shape[1]:
            raise DataError(
                f"the target of {self.name} has shape {found.shape}, expected {shape}, which the profile's text tower "
                "gives; make the targets with that tower, or move them away, and they are computed"
            )
        return found[: shape[0]].astype(np.float32)


class Samples(Protocol):
    """A data set by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Sample `index` from 0; its picture is not read yet. DataError if its text is not in the format."""
        ...


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of a data set's list. DataError if it is missing."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read ({error.strerror}); give the folder that holds it") from error


def as_text(data: bytes, where: str) -> str:
    """Decode UTF-8 with or without a byte-order mark. DataError for anything else."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 (byte {error.start}); convert it") from error
