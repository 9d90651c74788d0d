"""What all endpoints share: the pipeline, the worker, the sessions, and how a job is handed in."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from starlette.requests import Request

from mgcc_kiosk.drawing.fair_queue import FairQueue
from mgcc_kiosk.drawing.filters import Filters
from mgcc_kiosk.drawing.jobs import Job, Order, Reason
from mgcc_kiosk.drawing.pictures import Artist
from mgcc_kiosk.drawing.tally import Tally
from mgcc_kiosk.drawing.worker import Worker
from mgcc_kiosk.errors import ApiError, Code
from mgcc_kiosk.settings import Settings
from mgcc_kiosk.visitors.kept_by_name import KeptByName
from mgcc_kiosk.visitors.naming import Named
from mgcc_kiosk.visitors.sessions import Session, Sessions
from mgcc_kiosk.visitors.takeaways import Takeaways
from mgcc_runtime import Pipeline, Preview
from mgcc_runtime.conversation.shelf import Shelf


@dataclass
class Kiosk:
    """One for each server; used by the event loop's thread."""

    pipeline: Pipeline
    settings: Settings
    filters: Filters
    tally: Tally = field(default_factory=Tally)
    started_s: float = field(default_factory=time.monotonic)
    page_seen_s: float | None = None  # its last heartbeat
    ending: bool = False

    def __post_init__(self) -> None:
        limits = self.settings.limits
        self.artist = Artist(self.pipeline, self.filters)
        self.worker = Worker(FairQueue(int(limits.queue)), self.tally)
        self.sessions = Sessions(int(limits.sessions), limits.idle_s)
        self.pictures, self.no_pictures = Shelf(int(limits.picture_mb * 1e6)), Shelf(0)
        self.takeaways = Takeaways(int(limits.takeaway_mb * 1e6), limits.takeaway_s)
        self._restarted: KeptByName[bool] = KeptByName(int(limits.sessions))  # whose pages do not know it yet

    @property
    def previews(self) -> tuple[Preview, ...]:
        """The kinds that this bundle has, the cheapest first."""
        has_map = self.pipeline.bundle.manifest.preview is not None
        return (Preview.LINEAR, Preview.EXACT) if has_map else (Preview.EXACT,)

    @property
    def ready(self) -> bool:
        """Whether jobs are taken, and the worker works."""
        return not self.ending and self.worker.silent_s() < self.settings.limits.hang_s

    def session(self, request: Request) -> Session:
        """The request's session, opened where it must be; ApiError where too many are."""
        return self.sessions.open(visitor_of(request).name)

    def submit(self, session: Session, order: Order) -> Job:
        """ApiError where the session has enough to wait for, or the queue is full."""
        if self.ending:
            raise ApiError(Code.SHUTTING_DOWN, "the server ends; ask again when it is back", retry_after_s=5)
        if len(session.active()) >= self.settings.limits.jobs:
            raise ApiError(
                Code.TOO_MANY_JOBS, f"{self.settings.limits.jobs} jobs of this session wait or run, which is all that "
                "may; cancel one, or ask again when one is done", retry_after_s=2,
            )  # fmt: skip
        job = self.worker.submit(order)
        session.jobs[job.id] = job
        return job

    def forget(self, name: str) -> None:
        """A session, with all that belongs to it."""
        for job in self.sessions.forget(name):
            self.worker.stop(job, Reason.UNWANTED)

    def restart(self, name: str) -> None:
        """Forget a session, and have its page begin anew."""
        self.forget(name)
        self._restarted.put(name, True)

    def is_restarted(self, name: str) -> bool:
        """Whether its page has to begin anew; said once."""
        return self._restarted.drop(name)


def kiosk_of(request: Request) -> Kiosk:
    """The server's, of any request."""
    found: Kiosk = request.app.state.kiosk
    return found


def visitor_of(request: Request) -> Named:
    """Whose request it is, as the guard has found."""
    found: Named = request.state.visitor
    return found
