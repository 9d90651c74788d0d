"""Sessions: what belongs to one visitor and is seen by no other; in memory alone, and forgotten when unused."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

from mgcc_kiosk.drawing.jobs import Attendance, Job
from mgcc_kiosk.errors import ApiError, Code, not_found
from mgcc_kiosk.visitors.chats import VisitorChat
from mgcc_kiosk.visitors.kept_by_name import KeptByName

_IN_USE_S = 60.0  # after its last request
SESSION_NAME = r"[A-Za-z0-9_-]{16,64}"  # what somebody may call a session
_NAME = re.compile(SESSION_NAME)


def is_session_name(name: str) -> bool:
    """Whether somebody may call a session so."""
    return _NAME.fullmatch(name) is not None


@dataclass(eq=False)
class Session:
    """Used by the event loop's thread alone."""

    name: str
    chats: dict[str, VisitorChat] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    known: KeptByName[VisitorChat] = field(default_factory=KeptByName)  # by what stands for all that was said
    responses: KeptByName[Any] = field(default_factory=KeptByName)  # of OpenAI's API, by id
    used_s: float = field(default_factory=time.monotonic)

    def chat(self, name: str) -> VisitorChat:
        """ApiError where it has none of this id."""
        if name not in self.chats:
            raise not_found("chat")
        return self.chats[name]

    def job(self, name: str) -> Job:
        """ApiError where it has none of this id."""
        if name not in self.jobs:
            raise not_found("job")
        return self.jobs[name]

    def drop_old(self, ended_before_s: float) -> None:
        """Jobs that ended before a moment of the monotonic clock, and the pictures that responses have of them.

        One that belonged to its request has been answered once it has ended: nobody comes back for it.
        """
        for job in list(self.jobs.values()):
            of_request = job.order.attendance is Attendance.BY_REQUEST
            if job.ended_s is not None and (of_request or job.ended_s < ended_before_s):
                del self.jobs[job.id]
        for response in self.responses.values():
            if response.job.ended_s is not None and response.job.ended_s < ended_before_s:
                response.job.forget_pictures()

    def active(self, chat: str | None = None) -> list[Job]:
        """Jobs that wait or run, of one chat or of all."""
        return [job for job in self.jobs.values() if job.end is None and chat in (None, job.order.chat)]


class Sessions:
    """All of a server, by name. Used by the event loop's thread alone."""

    def __init__(self, most: int, idle_s: float) -> None:
        self._most, self._idle_s = most, idle_s
        self._known: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._known)

    def all(self) -> list[Session]:
        return list(self._known.values())

    def find(self, name: str) -> Session | None:
        """The session that is there already."""
        session = self._known.get(name)
        if session is not None:
            session.used_s = time.monotonic()
        return session

    def open(self, name: str) -> Session:
        """The session, new where it must be; ApiError where there are too many."""
        if (session := self.find(name)) is not None:
            return session
        if len(self._known) >= self._most and not self._make_room():
            raise ApiError(
                Code.TOO_MANY_SESSIONS, f"{self._most} sessions are open, which is all that may be; try again later",
                retry_after_s=60,
            )  # fmt: skip
        self._known[name] = Session(name)
        return self._known[name]

    def _make_room(self) -> bool:
        """Forget the session that was not used for the longest time, if that is some time: its page has its recipe."""
        unused = [session for session in self._known.values() if not session.active()]
        oldest = min(unused, key=lambda session: session.used_s, default=None)
        if oldest is None or time.monotonic() - oldest.used_s < _IN_USE_S:
            return False
        del self._known[oldest.name]
        return True

    def forget(self, name: str) -> list[Job]:
        """Everything of a session; its jobs that wait or run are to be stopped."""
        session = self._known.pop(name, None)
        return [] if session is None else session.active()

    def idle(self) -> list[str]:
        """Names of those that were not used for so long that they are to be forgotten."""
        now = time.monotonic()
        return [s.name for s in self.all() if not s.active() and now - s.used_s > self._idle_s]
