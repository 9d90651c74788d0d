"""For whoever runs the server: its health, its numbers, and whether the page lives. All are answered while it draws."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mgcc_kiosk.drawing.jobs import State
from mgcc_kiosk.drawing.tally import BUCKETS_S
from mgcc_kiosk.errors import ApiError, Code
from mgcc_kiosk.kiosk import Kiosk, kiosk_of, visitor_of
from mgcc_runtime.machine import resident_bytes
from mgcc_runtime.version import VERSION


async def health(request: Request) -> Response:
    return JSONResponse(health_json(kiosk_of(request)))


def health_json(kiosk: Kiosk) -> dict[str, Any]:
    """What whoever asks may know."""
    now, worker, tally = time.monotonic(), kiosk.worker, kiosk.tally
    seen_s = kiosk.page_seen_s
    return {
        "status": "ok", "version": VERSION, "uptime_s": round(now - kiosk.started_s, 1),
        "rss_mb": round(resident_bytes() / 1e6, 1),
        "queue": len(worker.queue.order()), "running": int(worker.running is not None), "drawn": tally.pictures,
        "failed": tally.count(State.ERROR), "cancelled": tally.count(State.CANCELLED),
        "sessions": len(kiosk.sessions), "chats": sum(len(s.chats) for s in kiosk.sessions.all()),
        "chat_bytes": kiosk.pipeline.shelf.used_bytes, "worker_busy_s": round(worker.busy_s(), 1),
        "page_heartbeat_s": None if seen_s is None else round(now - seen_s, 1),
    }  # fmt: skip


async def ready(request: Request) -> Response:
    kiosk = kiosk_of(request)
    if kiosk.ending:
        raise ApiError(Code.SHUTTING_DOWN, "the server ends; ask again when it is back", retry_after_s=5)
    if not kiosk.ready:
        raise ApiError(Code.NOT_READY, "the worker has given no sign for too long; start the server again")
    return JSONResponse({"ready": True})


async def heartbeat(request: Request) -> Response:
    """205, Reset Content, where staff have ended the page's session: it begins anew."""
    kiosk = kiosk_of(request)
    kiosk.page_seen_s = time.monotonic()
    return Response(status_code=205 if kiosk.is_restarted(visitor_of(request).name) else 204)


async def metrics(request: Request) -> Response:
    return PlainTextResponse("\n".join(_lines(kiosk_of(request))) + "\n", media_type="text/plain; version=0.0.4")


def _lines(kiosk: Kiosk) -> Iterator[str]:
    """Prometheus' text: a few numbers need no library for it."""
    tally, worker = kiosk.tally, kiosk.worker
    ends = [(f'end="{state.value}"', tally.count(state)) for state in (State.DONE, State.ERROR, State.CANCELLED)]
    yield from _metric("mgcc_jobs_total", "counter", "jobs by how they ended", ends)
    yield from _metric("mgcc_pictures_total", "counter", "pictures drawn", [("", tally.pictures)])
    yield from _metric("mgcc_refused_total", "counter", "requests refused, by code",
                       [(f'code="{code}"', count) for code, count in sorted(tally.refusals().items())])  # fmt: skip
    done = tally.count(State.DONE)
    within = [(f'le="{bound:g}"', count) for bound, count in zip(BUCKETS_S, tally.within(), strict=True)]
    yield "# HELP mgcc_job_seconds time that finished jobs took to draw"
    yield "# TYPE mgcc_job_seconds histogram"
    yield from (f"mgcc_job_seconds_bucket{{{label}}} {count}" for label, count in [*within, ('le="+Inf"', done)])
    yield f"mgcc_job_seconds_sum {tally.seconds:.3f}"
    yield f"mgcc_job_seconds_count {done}"
    yield from _metric("mgcc_queue_jobs", "gauge", "jobs that wait", [("", len(worker.queue.order()))])
    yield from _metric("mgcc_running_jobs", "gauge", "jobs that run", [("", int(worker.running is not None))])
    yield from _metric("mgcc_sessions", "gauge", "sessions", [("", len(kiosk.sessions))])
    yield from _metric("mgcc_chat_bytes", "gauge", "bytes that chats keep of what they have read",
                       [("", kiosk.pipeline.shelf.used_bytes)])  # fmt: skip
    yield from _metric("mgcc_resident_bytes", "gauge", "memory of the process", [("", resident_bytes())])


def _metric(name: str, kind: str, told: str, values: list[tuple[str, int]]) -> Iterator[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"
    yield from (f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in values)


ROUTES = [
    Route("/health", health),
    Route("/ready", ready),
    Route("/metrics", metrics),
    Route("/api/heartbeat", heartbeat, methods=["POST"]),
]
