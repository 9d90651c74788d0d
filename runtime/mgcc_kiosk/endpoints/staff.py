"""For staff, who have the key: what goes on, a screen that is let in, a visitor's session that begins anew.

Visitors stay unknown: sessions and jobs have tags that open nothing, and no word of theirs is told.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mgcc_kiosk.access import PASS_COOKIE, PASS_PATH, pass_of
from mgcc_kiosk.drawing.jobs import Job
from mgcc_kiosk.endpoints.operation import health_json
from mgcc_kiosk.endpoints.takeaways import qr_code
from mgcc_kiosk.errors import not_found
from mgcc_kiosk.kiosk import Kiosk, kiosk_of
from mgcc_kiosk.visitors.sessions import Session

_SALT = secrets.token_bytes(32)
_LONGEST_COOKIE_S = 400 * 24 * 3600  # that browsers keep one


async def overview(request: Request) -> Response:
    kiosk = kiosk_of(request)
    link = f"{request.url.scheme}://{request.headers['host']}/#pass={pass_of(kiosk.settings.key)}"
    return JSONResponse({
        "health": {**health_json(kiosk), "ready": kiosk.ready},
        "jobs": [_job_json(kiosk, job) for job in _active(kiosk)],
        "sessions": [_session_json(session) for session in kiosk.sessions.all()],
        "link": {"url": link, "qr": qr_code(link)},
    })  # fmt: skip


def _job_json(kiosk: Kiosk, job: Job) -> dict[str, Any]:
    return {
        "tag": _tag(job.id), "session": _tag(job.order.session), "kind": job.order.kind.value,
        "state": job.state.value, "position": kiosk.worker.position(job), "estimate_ms": kiosk.worker.estimate_ms(job),
    }  # fmt: skip


def _session_json(session: Session) -> dict[str, Any]:
    turns = sum(len(chat.turns) for chat in session.chats.values())
    return {
        "tag": _tag(session.name), "chats": len(session.chats), "turns": turns, "jobs": len(session.active()),
        "unused_s": round(time.monotonic() - session.used_s, 1),
    }  # fmt: skip


async def cancel_job(request: Request) -> Response:
    kiosk, tag = kiosk_of(request), request.path_params["tag"]
    for job in _active(kiosk):
        if _tag(job.id) == tag:
            kiosk.worker.stop(job)
            return Response(status_code=204)
    raise not_found("job")


async def restart_session(request: Request) -> Response:
    """Forget it; its page begins anew with its next sign of life."""
    kiosk, tag = kiosk_of(request), request.path_params["tag"]
    for session in kiosk.sessions.all():
        if _tag(session.name) == tag:
            kiosk.restart(session.name)
            return Response(status_code=204)
    raise not_found("session")


async def let_in(request: Request) -> Response:
    """This browser is a visitors' screen from now on; asked with the key or the pass."""
    answer = Response(status_code=204)
    key = kiosk_of(request).settings.key
    if key:
        answer.set_cookie(
            PASS_COOKIE, pass_of(key), max_age=_LONGEST_COOKIE_S, path="/api", httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
    return answer


async def lock(request: Request) -> Response:
    """And no longer."""
    answer = Response(status_code=204)
    answer.delete_cookie(PASS_COOKIE, path="/api", httponly=True, samesite="strict")
    return answer


def _active(kiosk: Kiosk) -> list[Job]:
    """The running job, then those that wait, in their order."""
    running = kiosk.worker.running
    return [*([running] if running is not None and running.end is None else []), *kiosk.worker.queue.order()]


def _tag(name: str) -> str:
    return hmac.new(_SALT, name.encode(), hashlib.sha256).hexdigest()[:12]


_STAFF = "/api/staff"
ROUTES = [
    Route(_STAFF, overview),
    Route(f"{_STAFF}/pass", lock, methods=["DELETE"]),
    Route(f"{_STAFF}/jobs/{{tag}}", cancel_job, methods=["DELETE"]),
    Route(f"{_STAFF}/sessions/{{tag}}", restart_session, methods=["DELETE"]),
    Route(PASS_PATH, let_in, methods=["POST"]),
]
