"""Chats of the page: turns, redrawings, undo, fork, and the recipe that a restarted server goes on from."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mgcc_kiosk.drawing.jobs import Attendance, Kind, Order, Reason
from mgcc_kiosk.endpoints.asked import (
    REDRAW_FIELDS,
    TURN_FIELDS,
    check_parts,
    options_of,
    parts_of,
    redraw_options_of,
    showing_of,
)
from mgcc_kiosk.endpoints.recipes import resumed_chat
from mgcc_kiosk.endpoints.shapes import chat_json, job_json
from mgcc_kiosk.errors import ApiError, Code, not_found
from mgcc_kiosk.kiosk import Kiosk, kiosk_of, visitor_of
from mgcc_kiosk.visitors.chats import VisitorChat
from mgcc_kiosk.visitors.sessions import Session
from mgcc_kiosk.wire.bodies import read_json_object
from mgcc_kiosk.wire.fields import only
from mgcc_runtime.request import Draw


async def create(request: Request) -> Response:
    """A new chat, or the one of a recipe."""
    kiosk = kiosk_of(request)
    body = await read_json_object(request, kiosk.settings.limits)
    only(body, ["recipe"])
    session = kiosk.session(request)
    if body.get("recipe") is None:
        return _created(kiosk, session, VisitorChat(kiosk.artist, kiosk.pipeline.chat(), kiosk.pictures))
    chat = await run_in_threadpool(resumed_chat, kiosk, body["recipe"], kiosk.pictures)
    return _created(kiosk, session, chat)


def _created(kiosk: Kiosk, session: Session, chat: VisitorChat) -> Response:
    if (count := len(session.chats)) >= kiosk.settings.limits.chats:
        raise ApiError(
            Code.TOO_MANY_CHATS,
            f"the session has {count} chats, which is all that it may; delete one",
        )
    session.chats[chat.id] = chat
    return JSONResponse(chat_json(session, chat), 201)


async def show(request: Request) -> Response:
    session, chat = _chat(request)
    return JSONResponse(chat_json(session, chat))


async def delete(request: Request) -> Response:
    session, chat = _chat(request)
    for job in session.active(chat.id):
        kiosk_of(request).worker.stop(job, Reason.UNWANTED)
    del session.chats[chat.id]
    return Response(status_code=204)


async def turn(request: Request) -> Response:
    """Add a turn; the job draws it."""
    kiosk = kiosk_of(request)
    session, chat = _chat(request)
    limits = kiosk.settings.limits
    body = await read_json_object(request, limits)
    only(body, TURN_FIELDS)
    number = len(chat.turns) + sum(job.order.kind is Kind.TURN for job in session.active(chat.id))
    if number >= limits.turns:
        raise ApiError(Code.TOO_MANY_TURNS, f"the chat has {number} turns, which is all that it may; begin another")
    parts = await run_in_threadpool(parts_of, body, limits)
    await run_in_threadpool(check_parts, kiosk, parts)
    showing = showing_of(kiosk, body)
    work = chat.turn(parts, options_of(kiosk, body), showing, Draw.ALWAYS)
    order = Order(Kind.TURN, session.name, work, showing.pictures, Attendance.BY_PAGE, chat.id, number)
    return JSONResponse(job_json(kiosk, kiosk.submit(session, order)), 202)


async def redraw(request: Request) -> Response:
    """Draw a turn's picture again."""
    kiosk = kiosk_of(request)
    session, chat = _chat(request)
    number = _turn_number(request, chat)
    body = await read_json_object(request, kiosk.settings.limits)
    only(body, REDRAW_FIELDS)
    showing = showing_of(kiosk, body)
    work = chat.redraw(number, redraw_options_of(kiosk, body), showing)
    order = Order(Kind.REDRAW, session.name, work, showing.pictures, Attendance.BY_PAGE, chat.id, number)
    return JSONResponse(job_json(kiosk, kiosk.submit(session, order)), 202)


async def image(request: Request) -> Response:
    """A turn's picture as it was drawn last."""
    _, chat = _chat(request)
    picture = chat.turns[_turn_number(request, chat)].picture
    png = None if picture is None else picture.png.get()
    if png is None:
        raise ApiError(Code.PICTURE_DROPPED, "the turn's picture is no longer in memory; redraw the turn")
    return Response(png, media_type="image/png")


async def undo(request: Request) -> Response:
    session, chat = _quiet_chat(request)
    chat.undo()
    return JSONResponse(chat_json(session, chat))


async def fork(request: Request) -> Response:
    session, chat = _quiet_chat(request)
    return _created(kiosk_of(request), session, chat.forked())


async def recipe(request: Request) -> Response:
    _, chat = _chat(request)
    return Response(await run_in_threadpool(chat.recipe), media_type="application/json")


def _chat(request: Request) -> tuple[Session, VisitorChat]:
    session = kiosk_of(request).sessions.find(visitor_of(request).name)
    if session is None:
        raise not_found("chat")
    return session, session.chat(request.path_params["chat"])


def _quiet_chat(request: Request) -> tuple[Session, VisitorChat]:
    """One of which no job waits or runs."""
    session, chat = _chat(request)
    if session.active(chat.id):
        raise ApiError(Code.CHAT_BUSY, "a job of the chat waits or runs, expected none; wait for it or cancel it")
    return session, chat


def _turn_number(request: Request, chat: VisitorChat) -> int:
    number: int = request.path_params["turn"]
    if number >= len(chat.turns):
        raise not_found("turn")
    return number


_CHAT = "/api/chats/{chat}"
ROUTES = [
    Route("/api/chats", create, methods=["POST"]),
    Route(_CHAT, show),
    Route(_CHAT, delete, methods=["DELETE"]),
    Route(f"{_CHAT}/turns", turn, methods=["POST"]),
    Route(f"{_CHAT}/turns/{{turn:int}}/redraw", redraw, methods=["POST"]),
    Route(f"{_CHAT}/turns/{{turn:int}}/image", image),
    Route(f"{_CHAT}/undo", undo, methods=["POST"]),
    Route(f"{_CHAT}/fork", fork, methods=["POST"]),
    Route(f"{_CHAT}/recipe", recipe),
]
