"""The events of a running request, which may be cancelled from another thread."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

from mgcc_runtime.cancelling import Cancel
from mgcc_runtime.errors import CancelledError
from mgcc_runtime.lifetime import Lifetime, working
from mgcc_runtime.results import Event


class Stream(Iterator[Event]):
    """Made by `Pipeline.stream` and `Chat.stream`: an iterator over the events of one request.

    Nothing runs before the first event is asked for, and each is made while it is waited for.
    """

    def __init__(self, events: Generator[Event, None, None], pipeline: Lifetime, cancel: Cancel) -> None:
        """`cancel` is what the request looks at between its stages, and no other request does."""
        self._events, self._pipeline, self._cancel = events, pipeline, cancel
        self._closed = threading.Event()
        self._busy = threading.Lock()  # held while an event is made

    def __next__(self) -> Event:
        """The next event; raises what the request raises, StopIteration after its last event or after `close`.

        CancelledError where the request's `Cancel` ends it.
        """
        self._pipeline.check_process()  # before a lock that a thread of the parent may have held
        with working(), self._busy:
            if self._closed.is_set():
                self._events.close()
                raise StopIteration
            try:
                event = next(self._events)
            except CancelledError:
                if self._closed.is_set():
                    raise StopIteration from None
                raise
            if (
                self._closed.is_set()
            ):  # in the last call of a stage: a chat may have remembered the turn, so the event is given
                self._events.close()
            return event

    def close(self) -> None:
        """Cancel the request; may be called from any thread, at any time and more than once. It does not wait.

        What another thread is waiting for just then ends with the stage's call that runs, without an event unless that
        was the event's last one.
        """
        self._closed.set()
        self._cancel.cancel()
        if self._busy.acquire(blocking=False):  # a generator that runs cannot be closed from outside
            try:
                self._events.close()
            finally:
                self._busy.release()
