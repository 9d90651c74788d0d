"""A job that belongs to the request that made it: it ends some milliseconds after its client has left."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request

from mgcc_kiosk.drawing.events import Drawn, Failed, Finished, JobEvent
from mgcc_kiosk.drawing.jobs import Job
from mgcc_kiosk.errors import ApiError, Code
from mgcc_kiosk.kiosk import Kiosk
from mgcc_kiosk.wire.streams import unless_it_leaves


async def finished(request: Request, kiosk: Kiosk, job: Job) -> Drawn:
    """Wait for it; ApiError where it fails, is cancelled, or its client leaves."""
    try:
        await unless_it_leaves(request, job.wait)
    finally:
        kiosk.worker.stop(job)
    return drawn_of(job)


def drawn_of(job: Job) -> Drawn:
    """What a job that has ended gave; ApiError where that is nothing."""
    if isinstance(job.end, Finished):
        return job.end.drawn
    if isinstance(job.end, Failed):
        raise job.end.error
    raise ApiError(Code.CANCELLED, "the job was cancelled before it was done; ask again if it is wanted")


async def followed(kiosk: Kiosk, job: Job) -> AsyncGenerator[JobEvent | None, None]:
    """Its events, and None where nothing came for a while; whoever closes this early cancels the job."""
    try:
        async with aclosing(job.follow()) as events:
            async for told in events:
                yield None if told is None else told[1]
    finally:
        kiosk.worker.stop(job)
