"""The events of a running request, which may be cancelled from another thread."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

from mgcc_runtime.lifetime import Lifetime, working
from mgcc_runtime.results import Event


class Stream(Iterator[Event]):
    """Made by `Pipeline.stream` and `Chat.stream`: an iterator over the events of one request.

    Nothing runs before the first event is asked for, and each is made while it is waited for.
    """

    def __init__(self, events: Generator[Event, None, None], pipeline: Lifetime) -> None:
        self._events, self._pipeline = events, pipeline
        self._cancelled = threading.Event()
        self._busy = threading.Lock()  # held while an event is made

    def __next__(self) -> Event:
        """The next event; raises what the request raises, StopIteration after its last event or after `close`."""
        self._pipeline.check_process()  # before a lock that a thread of the parent may have held
        with working(), self._busy:
            if self._cancelled.is_set():
                self._events.close()
                raise StopIteration
            event = next(self._events)
            if self._cancelled.is_set():  # meanwhile; a chat may have remembered the turn, so the event is still given
                self._events.close()
            return event

    def close(self) -> None:
        """Cancel the request; may be called from any thread, at any time and more than once. It does not wait.

        An event that another thread is waiting for just then is still made and given; it is the last one.
        """
        self._cancelled.set()
        if self._busy.acquire(blocking=False):  # a generator that runs cannot be closed from outside
            try:
                self._events.close()
            finally:
                self._busy.release()
