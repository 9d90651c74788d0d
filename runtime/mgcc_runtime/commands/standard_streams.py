"""Standard streams that never fail to be written to, whatever is at their other end."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, cast


class GuardedStream:
    """A standard stream that never fails to be written to: `lost` tells why something could not be."""

    def __init__(self, stream: TextIO | None) -> None:
        self.closed_before = stream is None
        self.lost: Exception | None = OSError(errno.EBADF, "it is closed") if stream is None else None
        self.owed = False  # something was written that the command was asked for
        self._stream: TextIO = _nowhere() if stream is None else stream
        _bear_all_characters(self._stream)

    def write(self, text: str) -> int:
        if self.lost is None:
            try:
                return self._stream.write(text)
            except (OSError, ValueError) as error:  # ValueError: closed meanwhile
                self._give_up(error)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Send the rest nowhere, so that Python's own last attempt at what waits in its buffer succeeds."""
        self.lost = error
        with contextlib.suppress(OSError, ValueError), _nowhere() as nowhere:  # a stream in memory has no number
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded_streams() -> Iterator[GuardedStream]:
    _fill_closed_numbers()
    before = sys.stdout, sys.stderr
    out, err = GuardedStream(sys.stdout), GuardedStream(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        err.flush()
        sys.stdout, sys.stderr = before


def _fill_closed_numbers() -> None:
    """Lead closed standard streams nowhere: the next file that is opened would get the number of one.

    What a library then says on "standard error" would stand in a picture.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(opened, number)
                os.close(opened)


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace")


def _bear_all_characters(stream: TextIO) -> None:
    """Have it write \\x.. for what it has no characters for: ASCII for most, UTF-8 for files' names in Latin-1."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
