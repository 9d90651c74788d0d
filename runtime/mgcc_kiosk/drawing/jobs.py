"""A job: something to be drawn, what it has told so far, and whoever listens.

The worker's thread publishes, coroutines listen. What was told is kept, so that a listener who comes later or again
gets all of it; of a page's previews the last one, or a job of many steps would hold them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, replace
from typing import TypeAlias

from mgcc_kiosk.drawing.events import Cancelled, End, Failed, Finished, JobEvent, Progress, Queued, StepDone
from mgcc_kiosk.errors import ApiError, Code
from mgcc_runtime.cancelling import Cancel

#: Draws: gives its events, the last of which is the end. It runs in the worker's thread.
Work: TypeAlias = "Callable[[Cancel], Generator[JobEvent, None, None]]"


def _over(_: Cancel) -> Generator[JobEvent, None, None]:
    raise AssertionError("a job that has ended is not drawn again")


_Listener: TypeAlias = "tuple[asyncio.AbstractEventLoop, asyncio.Event]"


class Kind(str, enum.Enum):
    """What is done, which tells how long it takes."""

    TURN = "turn"
    REDRAW = "redraw"
    STORY = "story"  # a picture without a chat


class State(str, enum.Enum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    ERROR = "error"
    CANCELLED = "cancelled"


class Reason(enum.Enum):
    """Why a job is ended before it is done."""

    UNWANTED = "unwanted"  # by its visitor, or nobody listens any more
    TIME_LIMIT = "time limit"
    SHUTDOWN = "shutdown"


class Attendance(enum.Enum):
    """What becomes of a job that nobody listens to."""

    BY_REQUEST = "by request"  # the request that made it cancels it when its client leaves
    BY_PAGE = "by page"  # it survives a reload for some seconds


@dataclass(frozen=True)
class Order:
    """What is asked for: the work, and what the queue has to know of it."""

    kind: Kind
    session: str
    work: Work
    pictures: int = 1
    attendance: Attendance = Attendance.BY_REQUEST
    chat: str = ""  # its id
    turn: int | None = None


class Job:
    """Made of an order by `Worker.submit`."""

    def __init__(self, order: Order) -> None:
        self.order, self.id, self.cancel = order, secrets.token_urlsafe(16), Cancel()
        self.began_s: float | None = None
        self.ended_s: float | None = None
        self.told_position = -1  # the last one that was published
        self.attended_s = time.monotonic()  # when somebody last listened or asked
        self._told: list[tuple[int, JobEvent]] = []
        self._count, self._reason = 0, Reason.UNWANTED
        self._state = State.QUEUED
        self._end: End | None = None
        self._lock = threading.Lock()
        self._listeners, self._waiters = set[_Listener](), set[_Listener]()  # of every word, and of the end alone

    @property
    def state(self) -> State:
        return self._state

    @property
    def end(self) -> End | None:
        """How it ended."""
        return self._end

    @property
    def listened_to(self) -> bool:
        return bool(self._listeners or self._waiters)

    def begin(self) -> None:
        self._state, self.began_s = State.RUNNING, time.monotonic()

    def ask_to_end(self, reason: Reason) -> None:
        """The first reason stands."""
        if not self.cancel.cancelled:
            self._reason = reason
        self.cancel.cancel()

    def stopped(self) -> End:
        """The end of a job that was cancelled, by its reason."""
        if self._reason is Reason.TIME_LIMIT:
            return Failed(ApiError(Code.TIME_LIMIT, "the job ran longer than is allowed here; ask for less at a time"))
        if self._reason is Reason.SHUTDOWN:
            return Failed(ApiError(Code.SHUTTING_DOWN, "the server ends; ask again when it is back", retry_after_s=5))
        return Cancelled()

    def publish(self, event: Progress | End) -> None:
        """From any thread. Nothing is published after an end."""
        with self._lock:
            if self._end is not None:
                return
            if isinstance(event, Finished | Failed | Cancelled):
                self._end, self._state, self.ended_s = event, _STATES[type(event)], time.monotonic()
                self.order = replace(self.order, work=_over)  # which held its chat, and what that has read
            self._told = [(number, old) for number, old in self._told if not self._replaced(old, event)]
            self._count += 1
            self._told.append((self._count, event))
            listeners = [*self._listeners, *(self._waiters if self._end is not None else ())]
        for loop, news in listeners:
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.set)

    def forget_pictures(self) -> None:
        """Of a job that has ended."""
        with self._lock:
            self._told = []
            if isinstance(self._end, Finished):
                self._end = Finished(replace(self._end.drawn, pictures=()))

    def _replaced(self, old: JobEvent, new: JobEvent) -> bool:
        """Whether a listener who has not taken the old event needs it no more. Clients of OpenAI's API count theirs."""
        kinds = (StepDone, Queued) if self.order.attendance is Attendance.BY_PAGE else (Queued,)
        return type(old) is type(new) and isinstance(old, kinds)

    async def wait(self) -> None:
        """Until it has ended, without a word of what happens before: each word wakes the event loop's thread."""
        async with self._listening(self._waiters) as ended:
            if self._end is None:
                await ended.wait()

    async def follow(self, after: int = 0, beat_s: float = 10.0) -> AsyncGenerator[tuple[int, JobEvent] | None, None]:
        """Events with their numbers, those above `after` alone, up to the end; None where nothing came for `beat_s`."""
        async with self._listening(self._listeners) as news:
            while True:
                news.clear()
                with self._lock:
                    told, end = [(number, event) for number, event in self._told if number > after], self._end
                for number, event in told:
                    after = number
                    yield number, event
                if end is not None:
                    return
                try:
                    await asyncio.wait_for(news.wait(), beat_s)
                except asyncio.TimeoutError:  # of Python 3.10 another class than TimeoutError
                    yield None

    @contextlib.asynccontextmanager
    async def _listening(self, among: set[_Listener]) -> AsyncGenerator[asyncio.Event, None]:
        listener = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            among.add(listener)
        try:
            yield listener[1]
        finally:
            with self._lock:
                among.discard(listener)
            self.attended_s = time.monotonic()


_STATES = {Finished: State.DONE, Failed: State.ERROR, Cancelled: State.CANCELLED}
