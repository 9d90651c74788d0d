"""`/v1/responses`: a conversation that the server keeps; `previous_response_id` goes on from any of its answers.

Where the answer before is not known, as on another server, its `recipe` does: a field of our own, in an answer to a
request with `recipe: true`, and given back with the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mgcc_kiosk.drawing.events import Finished
from mgcc_kiosk.endpoints.recipes import resumed_chat
from mgcc_kiosk.errors import ApiError, Code, invalid, not_found
from mgcc_kiosk.kiosk import kiosk_of, visitor_of
from mgcc_kiosk.openai.asked import MOST_PARTIAL_IMAGES, showing_of
from mgcc_kiosk.openai.carrying import finished
from mgcc_kiosk.openai.dialogue import asked_of, check_length, new_chat
from mgcc_kiosk.openai.messages import turns_of
from mgcc_kiosk.openai.response_json import KeptResponse
from mgcc_kiosk.openai.response_stream import ResponseStream
from mgcc_kiosk.visitors.chats import VisitorChat
from mgcc_kiosk.visitors.naming import By
from mgcc_kiosk.visitors.response_ids import new_response_id, session_of
from mgcc_kiosk.visitors.sessions import Session
from mgcc_kiosk.wire import fields
from mgcc_kiosk.wire.bodies import read_json_object
from mgcc_kiosk.wire.streams import EventStream
from mgcc_runtime import Overflow
from mgcc_runtime.request import Draw

_TOOL = "image_generation"
_REPEATED = ("instructions", "previous_response_id", "tool_choice", "tools", "truncation", "metadata", "background")


async def create(request: Request) -> Response:
    kiosk = kiosk_of(request)
    body = await read_json_object(request, kiosk.settings.limits)
    turns = await run_in_threadpool(turns_of, body.get("input"), "input", kiosk.settings.limits)
    chat = await _chat(request, body)
    session = kiosk.sessions.open(_session_name(request, body.get("previous_response_id")))
    check_length(kiosk, chat)
    tool = _tool(body)
    words = body.get("max_output_tokens")
    asked = await run_in_threadpool(asked_of, kiosk, {**body, **tool}, turns, _draw_of(body), words)
    streamed, background = fields.flag(body, "stream"), fields.flag(body, "background")
    partial_images = fields.whole(tool, "partial_images", 0, MOST_PARTIAL_IMAGES, 0) if streamed else 0
    showing = showing_of(kiosk, {**body, **tool}, asked.options, partial_images)
    job = asked.submit(kiosk, session, chat, showing)
    repeated = {name: body[name] for name in _REPEATED if name in body}
    response = KeptResponse(
        kiosk, asked, chat, repeated, job, new_response_id(session.name), with_recipe=bool(body.get("recipe"))
    )
    session.responses.put(response.id, response)
    if streamed:
        return EventStream(ResponseStream(response, partial_images).told())
    if not background:
        await finished(request, kiosk, job)
    return JSONResponse(await run_in_threadpool(response.to_json))


async def show(request: Request) -> Response:
    _, response = _kept(request)
    return JSONResponse(await run_in_threadpool(response.to_json))


async def delete(request: Request) -> Response:
    session, response = _kept(request)
    kiosk_of(request).worker.stop(response.job)
    session.responses.drop(response.id)
    return JSONResponse({"id": response.id, "object": "response", "deleted": True})


async def cancel(request: Request) -> Response:
    _, response = _kept(request)
    kiosk_of(request).worker.stop(response.job)
    return JSONResponse(await run_in_threadpool(response.to_json))


async def _chat(request: Request, body: Mapping[str, Any]) -> VisitorChat:
    """That of the response before, or of its recipe where the response is not known here; else a new one."""
    kiosk, recipe = kiosk_of(request), body.get("recipe")
    truncation = fields.word(body, "truncation", ["auto", "disabled"], "disabled")
    name = fields.text(body, "previous_response_id", "")
    before = _find(request, name) if name else None
    if before is not None:
        if not isinstance(before.job.end, Finished):
            raise invalid(
                "the response before is not completed, expected one that is; wait for it", "previous_response_id"
            )
        return before.chat.forked()
    if recipe is not None and not isinstance(recipe, bool):
        return await run_in_threadpool(resumed_chat, kiosk, recipe, kiosk.no_pictures)
    if name:
        raise ApiError(
            Code.NOT_FOUND, "the response before is not known here: it was deleted or is long ago, or another server "
            "gave it; send its `recipe` along, or the whole conversation as input without previous_response_id",
            param="previous_response_id",
        )  # fmt: skip
    return new_chat(kiosk, Overflow.DROP_OLDEST if truncation == "auto" else Overflow.REFUSE)


def _tool(body: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the tool `image_generation`; other tools are not called here."""
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise invalid("tools is no list, expected one; correct it", "tools")
    for tool in tools:
        if isinstance(tool, dict) and tool.get("type") == _TOOL:
            if tool.get("input_image_mask") is not None:
                raise invalid("input_image_mask is not taken: boxes say where things stand here; leave it out", "tools")
            return {name: value for name, value in tool.items() if name not in ("type", "model", "quality", "action")}
    return {}


def _draw_of(body: Mapping[str, Any]) -> Draw:
    """A picture for sure where the tool has to be called; else the model decides."""
    choice = body.get("tool_choice")
    named = choice.get("type") if isinstance(choice, dict) else choice
    return Draw.ALWAYS if named in (_TOOL, "required") else Draw.AUTO


def _kept(request: Request) -> tuple[Session, KeptResponse]:
    response = _find(request, request.path_params["response"])
    session = kiosk_of(request).sessions.find(_session_name(request, request.path_params["response"]))
    if session is None or response is None:
        raise not_found("response")
    return session, response


def _find(request: Request, response_id: str) -> KeptResponse | None:
    session = kiosk_of(request).sessions.find(_session_name(request, response_id))
    return None if session is None else session.responses.find(response_id)


def _session_name(request: Request, response_id: object) -> str:
    """Whoever names no session is in the one that the response's id names: the id is all that they need to know."""
    visitor = visitor_of(request)
    told = session_of(response_id) if isinstance(response_id, str) else None
    return visitor.name if told is None or visitor.by is By.HEADER else told


_RESPONSE = "/v1/responses/{response}"
ROUTES = [
    Route("/v1/responses", create, methods=["POST"]),
    Route(_RESPONSE, show),
    Route(_RESPONSE, delete, methods=["DELETE"]),
    Route(f"{_RESPONSE}/cancel", cancel, methods=["POST"]),
]
