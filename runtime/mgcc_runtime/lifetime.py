"""How long an engine lives: until it is closed, its process ends, or a fork leaves it behind.

Engines work in native threads and give Python's lock away meanwhile. So three things may happen under a call that
runs, and each has its rule here:

- `close` from another thread waits for the calls that run; one that would begin is refused with ClosedError.
- A forked child has none of the engine's threads. What it inherited refuses, and is never torn down there: a
  destructor would wait for those threads for ever.
- Python ends threads that are daemons where they next ask for its lock. Within native code that aborts the process, so
  the interpreter's exit waits until no thread is in there; one that would begin ends instead, without a word.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import enum
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType

from mgcc_runtime.errors import ClosedError

_LOG = logging.getLogger(__name__)
#: The longest that closing waits for calls that run, far above a stage's slowest call; and that the end of the process
#: does, where somebody may sit and wait.
CLOSE_PATIENCE_S, EXIT_PATIENCE_S = 60.0, 30.0


class _State(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"
    LEFT_BEHIND = "left behind"  # in the parent of this process


class _Process:
    """Threads that are at work in this process, and whether it ends."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.working: dict[int, int] = {}  # thread -> how many pieces of work, one within the other
        self.has_engines = False
        self.ended_by: int | None = None  # the thread that ends it

    def ends_for_this_thread(self) -> bool:
        return self.ended_by not in (None, threading.get_ident())

    def only_this_thread_works(self) -> bool:
        return self.working.keys() <= {threading.get_ident()}


_PROCESS = _Process()


class Lifetime:
    """Of one thing that `free` frees. `with` it around each call, from any thread; ClosedError once it has ended."""

    def __init__(self, name: str, free: Callable[[], None]) -> None:
        self._name, self._free = name, free
        self._state = _State.OPEN
        self._opened_by = os.getpid()
        self._changed = threading.Condition()
        self._inside: set[int] = set()  # the thread of each call that runs
        self._closers, self._freed = 0, False
        _LIVING[id(self)] = self
        _PROCESS.has_engines = True

    def __enter__(self) -> None:
        self.check()
        with self._changed:
            self.check()
            self._inside.add(threading.get_ident())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside.discard(threading.get_ident())
            if self._closers:
                self._changed.notify_all()
            elif self._state is not _State.OPEN:  # whoever closed it did not wait, or no longer
                self._free_if_last()

    def check(self) -> None:
        """ClosedError if it has ended."""
        if self._state is _State.OPEN:
            return
        self.check_process()
        if _PROCESS.ends_for_this_thread():
            raise SystemExit  # which ends a thread quietly
        raise ClosedError(f"{self._name} is closed; load the pipeline again")

    def check_process(self) -> None:
        """ClosedError in a forked child of the process that opened it."""
        if self._state is _State.LEFT_BEHIND:
            raise ClosedError(
                f"{self._name} was opened by process {self._opened_by} and cannot be used in its forked child "
                f"{os.getpid()}; load the pipeline in the child, or start processes by `spawn`"
            )

    def end(self, patience_s: float = CLOSE_PATIENCE_S) -> None:
        """Refuse new calls, wait for those that run in other threads, and free; may be called more than once.

        Where this thread is in a call itself, or waiting took too long, the last call frees.
        """
        if self._state is _State.LEFT_BEHIND:
            return
        with self._changed:
            self._state = _State.CLOSED
            mine = {threading.get_ident()}
            self._closers += 1
            try:
                if not self._changed.wait_for(lambda: self._inside <= mine, patience_s):
                    _LOG.warning("%s: a call runs on after %.0f s and frees its memory later", self._name, patience_s)
            finally:
                self._closers -= 1
            self._free_if_last()

    def refuse(self) -> None:
        """Refuse new calls from now on, without waiting."""
        if self._state is _State.OPEN:
            self._state = _State.CLOSED

    def leave_behind(self) -> None:
        """In a forked child: nothing of it is touched again, not even by the end of the interpreter."""
        self._changed = threading.Condition()
        if self._state is not _State.LEFT_BEHIND and not self._freed:
            self._state = _State.LEFT_BEHIND
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))  # it, and all that `free` reaches, is never destroyed

    def _free_if_last(self) -> None:
        if not self._inside and not self._freed:
            self._freed = True
            self._free()


_LIVING: weakref.WeakValueDictionary[int, Lifetime] = weakref.WeakValueDictionary()


def _living() -> list[Lifetime]:
    # a list made at once: other threads may open and drop engines meanwhile
    return [lifetime for ref in _LIVING.valuerefs() if (lifetime := ref()) is not None]


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Around work in native code of whatever kind: the process does not end under it."""
    process, thread = _PROCESS, threading.get_ident()
    with process.changed:
        if process.ends_for_this_thread():
            raise SystemExit
        before = process.working.get(thread, 0)
        process.working[thread] = before + 1
    try:
        yield
    finally:
        with process.changed:
            if before:
                process.working[thread] = before
            else:
                process.working.pop(thread, None)
                process.changed.notify_all()


def _at_exit() -> None:
    """Once the main thread has returned and all threads that are no daemons have ended."""
    process, deadline_s = _PROCESS, time.monotonic() + EXIT_PATIENCE_S
    process.ended_by = threading.get_ident()
    living = _living()
    for lifetime in living:
        lifetime.refuse()
    with contextlib.suppress(KeyboardInterrupt):  # whoever does not want to wait
        with process.changed:
            if not process.changed.wait_for(process.only_this_thread_works, EXIT_PATIENCE_S):
                _LOG.warning("a request has not ended %.0f s after the main thread", EXIT_PATIENCE_S)
        for lifetime in living:
            try:
                lifetime.end(max(0.0, deadline_s - time.monotonic()))
            except Exception as error:  # noqa: BLE001 - an engine's own, at an end that goes on
                _LOG.warning("not freed: %s", error)


def _in_child() -> None:
    """After a fork, in the child: threads, and the locks that they held, are the parent's."""
    global _PROCESS  # noqa: PLW0603 - there is one process, and another after a fork
    if _PROCESS.has_engines:
        _end_without_destructors()
    _PROCESS = _Process()
    for lifetime in _living():
        lifetime.leave_behind()


def _end_without_destructors() -> None:
    """Let this process end before the destructors of native libraries, as `multiprocessing` ends its children.

    Those of an ONNX Runtime 1.32 that the host program imported by itself, with its telemetry, wait for ever for a
    thread that only the parent has. What Python has to do and to write at its end is done by then. On glibc alone.
    """
    libc = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
