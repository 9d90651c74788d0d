"""One turn of a chat at a time: the next one waits before it computes anything."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mgcc_runtime.cancelling import Cancel
from mgcc_runtime.errors import InputError
from mgcc_runtime.lifetime import Lifetime

_LOOK_S = 0.02  # how often whoever waits looks whether it is still wanted


class TurnLock:
    """Held from a turn's first event to its last, whichever threads take the events."""

    def __init__(self, pipeline: Lifetime) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()
        self._thread: int | None = None  # that took it

    @contextmanager
    def held(self, cancel: Cancel) -> Iterator[None]:
        """Wait for the turns that came before; CancelledError or ClosedError where that is no longer wanted.

        InputError in the thread of a turn that is under way: it would wait for itself.
        """
        while not self._lock.acquire(timeout=_LOOK_S):
            cancel.check()
            self._pipeline.check()
            if self._thread == threading.get_ident():
                raise InputError(
                    "a turn of this chat is under way in this thread, expected one at a time; take the events of its "
                    "stream to the last, or close it"
                )
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None
            self._lock.release()
