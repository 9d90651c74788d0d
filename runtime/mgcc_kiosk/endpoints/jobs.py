"""Jobs of the page: how far one is, its events, and cancelling it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mgcc_kiosk.drawing.jobs import Job
from mgcc_kiosk.endpoints.shapes import event_json, job_json
from mgcc_kiosk.errors import not_found
from mgcc_kiosk.kiosk import kiosk_of, visitor_of
from mgcc_kiosk.wire.streams import KEEP_ALIVE, EventStream, server_event


async def show(request: Request) -> Response:
    job = _job(request)
    job.attended_s = time.monotonic()
    return JSONResponse(job_json(kiosk_of(request), job))


async def cancel(request: Request) -> Response:
    job = _job(request)
    kiosk_of(request).worker.stop(job)
    return JSONResponse(job_json(kiosk_of(request), job))


async def events(request: Request) -> Response:
    job, last = _job(request), request.headers.get("last-event-id", "0")
    return EventStream(_told(job, int(last) if last.isdecimal() else 0))


async def _told(job: Job, after: int) -> AsyncIterator[bytes]:
    async with aclosing(job.follow(after)) as found:
        async for told in found:
            if told is None:
                yield KEEP_ALIVE
                continue
            number, event = told
            name, data = event_json(event)
            yield server_event(data, name, number)


def _job(request: Request) -> Job:
    session = kiosk_of(request).sessions.find(visitor_of(request).name)
    if session is None:
        raise not_found("job")
    return session.job(request.path_params["job"])


ROUTES = [
    Route("/api/jobs/{job}", show),
    Route("/api/jobs/{job}", cancel, methods=["DELETE"]),
    Route("/api/jobs/{job}/events", events),
]
