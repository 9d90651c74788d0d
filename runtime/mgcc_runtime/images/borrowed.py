"""A caller's image, taken over: what is drawn from is an image of our own, and theirs stays as it is.

An opened image of Pillow is a cursor over a file: its pixels are read when somebody first wants them, another frame is
another place in the file, and none of that may happen in two threads at once. So the file is read a second time, with a
cursor of our own, wherever that is possible.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

#: Held while an image of a caller's is touched: threads may share one, and Pillow completes it at the first touch.
_touching = threading.Lock()


def _forget_lock() -> None:
    global _touching  # noqa: PLW0603 (a lock cannot be told to forget its holder)
    _touching = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_lock)  # no thread of a child would ever give it back


def open_image(source: Path | IO[bytes]) -> ImageFile.ImageFile:
    """`Image.open`, at the first frame, without Pillow's warning of a large image.

    Warnings are filtered for the whole process, so two threads that did so at once would leave a filter behind.
    """
    with _touching, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        opened = Image.open(source)
    # of a file with a name Pillow may map the content, and the process ends if somebody then cuts the file short
    opened.filename = ""
    return opened


def take_over(image: Image.Image) -> Image.Image:
    """An image of our own with the first frame of `image`; that one keeps its frame and its pixels.

    It is read where it was not yet if its file is no plain one, or if it was changed since it was opened. Raises
    whatever Pillow raises on damaged data, and OSError, ValueError or AssertionError where its file is closed.
    """
    if not (_is_read(image) and image.tell() == _first_frame(image)) and (again := _opened_again(image)) is not None:
        return again
    with _touching:
        return _first_frame_of(image)


def _is_read(image: Image.Image) -> bool:
    """Whether the pixels of the present frame are in memory, and nobody is about to put them there."""
    if not isinstance(image, ImageFile.ImageFile):
        return True
    return not image.tile and getattr(image, "fp", None) is None


def _first_frame(image: Image.Image) -> int:
    return int(getattr(image, "_min_frame", 0))  # layered images count from 1


def _first_frame_of(image: Image.Image) -> Image.Image:
    """A copy, by way of the image itself."""
    here, first, was_read = image.tell(), _first_frame(image), _is_read(image)
    if here == first:
        copy = image.copy()
    else:
        if (file := getattr(image, "_fp", None)) is not None and file.closed:
            raise ValueError("another frame of it cannot be read, its file is closed")  # seeking drops this one first
        image.seek(first)
        try:
            copy = image.copy()
        finally:
            image.seek(here)
            if was_read:
                image.load()
    copy.format = image.format  # says what its values mean; Pillow's copy drops it
    return copy


def _opened_again(image: Image.Image) -> Image.Image | None:
    """The same file opened once more; None where that is not possible, or gives another image."""
    try:
        # an animation has its file under another name than an image whose file is closed once it is read
        file = _with_own_cursor(getattr(image, "_fp", None) or getattr(image, "fp", None))
        again = open_image(file) if file is not None else None
    except (OSError, ValueError):  # closed meanwhile, or no longer an image: the caller's own says so better
        return None
    if again is None or type(again) is not type(image):
        return None
    if image.tell() != again.tell():
        return again
    same = all(getattr(image, name) == getattr(again, name) for name in ("mode", "size", "tile", "info"))
    return again if same else None  # not the same where, say, `draft` has chosen another size


def _with_own_cursor(file: object) -> IO[bytes] | None:
    """The content of an open file from another cursor, so that the file's own stays; None for an unknown kind."""
    if isinstance(file, io.BytesIO):
        return io.BytesIO(file.getvalue())  # shares the bytes
    raw = file.raw if isinstance(file, io.BufferedReader) else file
    if isinstance(raw, io.FileIO) and hasattr(os, "pread"):
        return io.BufferedReader(_Cursor(os.dup(raw.fileno())))
    return None


class _Cursor(io.RawIOBase):
    """Reads an open file descriptor, which it owns, by position: that of the descriptor is shared, and is not used."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._position = descriptor, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = (os.fstat(self._descriptor).st_size if base is None else base) + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._descriptor, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
