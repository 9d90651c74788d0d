"""What the page is told of the server, and of its own session."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mgcc_kiosk.endpoints.shapes import chat_json, job_json
from mgcc_kiosk.kiosk import kiosk_of, visitor_of
from mgcc_kiosk.visitors.naming import COOKIE
from mgcc_runtime.version import VERSION

_TOLD_LIMITS = ("body_bytes", "parts", "text_chars", "pixels", "turns", "chats", "jobs", "queue", "pictures", "grace_s",
                "idle_s", "time_s")  # fmt: skip


async def info(request: Request) -> Response:
    kiosk = kiosk_of(request)
    bundle = kiosk.pipeline.bundle
    manifest, d = bundle.manifest, bundle.manifest.dimensions
    return JSONResponse({
        "version": VERSION, "profile": manifest.profile, "bundle": bundle.digest,
        "labels": list(kiosk.pipeline.labels.names), "image_px": d.image_px, "objects": d.objects,
        "context": d.context, "steps": manifest.default_steps, "guidance": manifest.default_guidance,
        "previews": [kind.value for kind in kiosk.previews], "pictures_taken": kiosk.settings.pictures_taken,
        "text_taken": "listed" if kiosk.filters.lists_words else "free",
        "phones": bool(kiosk.settings.phone_url), "staff": bool(kiosk.settings.key),
        "limits": {name: getattr(kiosk.settings.limits, name) for name in _TOLD_LIMITS},
    })  # fmt: skip


async def session(request: Request) -> Response:
    kiosk = kiosk_of(request)
    found = kiosk.sessions.find(visitor_of(request).name)
    if found is None:
        return JSONResponse({"chats": [], "jobs": []})
    return JSONResponse({
        "chats": [chat_json(found, chat) for chat in found.chats.values()],
        "jobs": [job_json(kiosk, job) for job in found.jobs.values()],
    })  # fmt: skip


async def forget_session(request: Request) -> Response:
    kiosk_of(request).forget(visitor_of(request).name)
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


ROUTES = [
    Route("/api/info", info),
    Route("/api/session", session),
    Route("/api/session", forget_session, methods=["DELETE"]),
]
