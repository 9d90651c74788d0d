"""Standard streams as a command may find them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

#: Makes a stream that is closed with the stack.
State = Callable[[ExitStack], Any]


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


STATES: dict[str, State] = {f.__name__: f for f in (closed, full, gone, in_ascii)}
#: Where nothing of what is written arrives, and that is known: a reader that has gone had what it wanted.
LOSING = ("closed", "full")


def run_with(work: Callable[[], int], **states: State) -> tuple[int, dict[str, str]]:
    """Run a command with these streams, by the names that `sys` has for them.

    Returns its exit code, and what streams that keep it were told.
    """
    with ExitStack() as stack:
        streams = {name: make(stack) for name, make in states.items()}
        with pytest.MonkeyPatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            code = work()
            assert {name: getattr(sys, name) for name in streams} == streams, "as they were"
        told = {}
        for name, stream in streams.items():
            if stream is not None and stream.readable():
                stream.seek(0)
                told[name] = stream.read()
        return code, told
