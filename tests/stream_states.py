"""Standard streams as a command may find them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any


def closed(stack: ExitStack) -> None:
    return None


def full(stack: ExitStack) -> io.TextIOWrapper:
    return stack.enter_context(Path("/dev/full").open("w", encoding="utf-8"))


def gone(stack: ExitStack) -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return stack.enter_context(os.fdopen(writer, "w", encoding="utf-8"))


def in_ascii(stack: ExitStack) -> io.TextIOWrapper:
    return stack.enter_context(Path("ascii").open("w+", encoding="ascii"))


def sound(stack: ExitStack) -> io.TextIOWrapper:
    return stack.enter_context(Path("sound").open("w+", encoding="utf-8"))


STATES: dict[str, Callable[[ExitStack], Any]] = {f.__name__: f for f in (closed, full, gone, in_ascii)}
#: Where nothing of what is written arrives, and that is known: a reader that has gone had what it wanted.
LOSING = ("closed", "full")
