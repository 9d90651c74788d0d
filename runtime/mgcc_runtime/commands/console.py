"""How a command runs: its standard streams, its signals and its exit code; the same for every command of the project.

A standard stream may be closed, full, in ASCII, or without a reader. None of that stops the work or shows a traceback:

- Standard error is for talk. What cannot be written there is lost, and nothing else is.
- On standard output stands what a command was asked for (`give`: JSON, a table, a text), or a word about what it keeps
  in a file (`note`). Where the first cannot be written the command fails; where the second cannot, standard error says
  so.
- A reader that has gone wanted no more: no error.

Exit codes: 0 done, 1 failed, 2 bad arguments or input, 130 interrupted, 143 and 129 stopped by SIGTERM and SIGHUP.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn, Protocol, TextIO

from mgcc_runtime.commands.standard_streams import GuardedStream, guarded_streams
from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, MgccError


class Main(Protocol):
    """Takes the arguments, None for those of the process; returns the exit code."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


_OF_SIGNALS = 128  # a shell's exit codes of programs that a signal ends start here
_STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A signal asks the program to end. Whatever an interruption leaves in order, this does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


def command(name: str, afterwards: str = "") -> Callable[[Main], Main]:
    """Make a command of a `main`: errors of ours and of the system become one sentence, everything an exit code.

    `name` stands before each sentence; `afterwards` is said, too, where Ctrl-C or a signal ends it.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def run(arguments: Sequence[str] | None = None) -> int:
            if isinstance(sys.stdout, GuardedStream):  # a command within a command
                return _code_of(main, arguments, name, afterwards)
            with guarded_streams() as out, _stoppable():
                return _settle(out, name, _code_of(main, arguments, name, afterwards))

        return run

    return decorate


def give(text: str) -> None:
    """Write to standard output what the command was asked for: where that cannot be done, the command has failed."""
    if isinstance(sys.stdout, GuardedStream):
        sys.stdout.owed = True
    note(text)


def give_json(value: Any) -> None:
    """`give` one JSON object, in ASCII where the stream has no other characters."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    give(text)


def note(text: str) -> None:
    """Write to standard output a word about what is kept elsewhere."""
    if sys.stdout is not None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def say(text: str, end: str = "\n") -> None:
    """Write to standard error, which is for people."""
    if sys.stderr is not None:
        sys.stderr.write(f"{text}{end}")
        sys.stderr.flush()


def say_error(name: str, error: MgccError) -> int:
    """Say what could not be done; returns the exit code."""
    say(f"{name}: {error}")
    return error.exit_code


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody sits at the other end of a standard stream; nobody does where it is closed."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed meanwhile
        return False


class Progress:
    """Elapsed time and what is being done, on standard error: one line that is rewritten on a terminal.

    Elsewhere a line at most every `elsewhere_s` seconds, none by default. As a context manager it clears its line.
    """

    def __init__(self, elsewhere_s: float = math.inf) -> None:
        self._start_s = self._said_s = time.perf_counter()
        self._terminal, self._elsewhere_s = is_terminal(sys.stderr), elsewhere_s

    def show(self, doing: str) -> None:
        now_s = time.perf_counter()
        text = f"[{now_s - self._start_s:6.1f} s] {doing}"
        if self._terminal:
            say(f"\r\033[K{text}", end="")
        elif now_s - self._said_s >= self._elsewhere_s:
            self._said_s = now_s
            say(text)

    def clear(self) -> None:
        if self._terminal:
            say("\r\033[K", end="")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message}; see `{self.prog} --help`")
        raise SystemExit(EXIT_BAD_INPUT)


def _code_of(main: Main, arguments: Sequence[str] | None, name: str, afterwards: str) -> int:
    try:
        return main(arguments)
    except SystemExit as stop:  # of argparse: help, a version, or what is wrong with an argument
        if isinstance(sys.stdout, GuardedStream):
            sys.stdout.owed = True
        if isinstance(stop.code, str):
            say(stop.code)
            return EXIT_FAILED
        return int(stop.code or 0)
    except MgccError as error:
        return say_error(name, error)
    except Stopped as stop:
        say(f"{name}: interrupted by {stop.signal.name}{afterwards}")
        return _OF_SIGNALS + stop.signal
    except KeyboardInterrupt:
        say(f"{name}: interrupted{afterwards}")
        return EXIT_INTERRUPTED
    except MemoryError:
        say(f"{name}: memory ran out; close other programs, or use a larger machine or a smaller bundle")
        return EXIT_FAILED
    except OSError as error:
        thing, reason = error.filename or "a file", error.strerror or error
        say(f"{name}: {thing} cannot be used ({reason}); see that it can be read or written, and that there is room")
        return EXIT_FAILED


def _settle(out: GuardedStream, name: str, code: int) -> int:
    """The exit code of a command that would have ended with `code`, once all is written that can be."""
    out.flush()
    lost = out.lost
    if lost is None or isinstance(lost, BrokenPipeError) or (out.closed_before and not out.owed):
        return code
    reason = lost.strerror if isinstance(lost, OSError) and lost.strerror else lost
    if not out.owed:
        say(f"{name}: standard output cannot be written to ({reason}); what was made is kept")
        return code
    say(f"{name}: standard output cannot be written to ({reason}); send it to a place that has room")
    return code or EXIT_FAILED


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does, half-written files removed. A second one ends it at once."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in _STOPPING if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores one
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
