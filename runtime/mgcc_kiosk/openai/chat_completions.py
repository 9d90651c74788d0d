"""`/v1/chat/completions`: a conversation that the client sends whole each time.

Pictures come in `message.images`, and in `delta.images` of a stream. What was read of the same conversation before is
known by a digest of what the user said so far, so that only what is new is read.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mgcc_kiosk.drawing.encoding import data_url
from mgcc_kiosk.drawing.events import Cancelled, Drawn, DrawnPicture, Failed, Finished, TextAdded
from mgcc_kiosk.drawing.jobs import Job
from mgcc_kiosk.errors import invalid
from mgcc_kiosk.kiosk import Kiosk, kiosk_of
from mgcc_kiosk.openai.asked import model_name, showing_of
from mgcc_kiosk.openai.carrying import finished, followed
from mgcc_kiosk.openai.dialogue import Asked, asked_of, check_length, new_chat
from mgcc_kiosk.openai.messages import digests, turns_of
from mgcc_kiosk.openai.shapes import now_s, own_fields
from mgcc_kiosk.visitors.chats import VisitorChat
from mgcc_kiosk.visitors.sessions import Session
from mgcc_kiosk.wire import fields
from mgcc_kiosk.wire.bodies import read_json_object
from mgcc_kiosk.wire.streams import KEEP_ALIVE, EventStream, server_event
from mgcc_runtime.request import Draw


async def completions(request: Request) -> Response:
    kiosk = kiosk_of(request)
    body = await read_json_object(request, kiosk.settings.limits)
    turns = await run_in_threadpool(turns_of, body.get("messages"), "messages", kiosk.settings.limits)
    session, names = kiosk.session(request), digests(turns)
    chat, known = _known(kiosk, session, names)
    check_length(kiosk, chat)
    words = body.get("max_completion_tokens", body.get("max_tokens"))
    asked = await run_in_threadpool(asked_of, kiosk, body, turns[known:], _draw_of(body), words)
    showing = showing_of(kiosk, body, asked.options, 0)
    job = asked.submit(kiosk, session, chat, showing)
    told = _Told(kiosk, session, chat, names[-1], asked)
    if fields.flag(body, "stream"):
        options = body.get("stream_options") or {}
        return EventStream(
            told.streamed(job, with_usage=isinstance(options, dict) and bool(options.get("include_usage")))
        )
    return JSONResponse(told.whole(await finished(request, kiosk, job)))


def _known(kiosk: Kiosk, session: Session, names: list[str]) -> tuple[VisitorChat, int]:
    """A chat that knows the most of the turns before the last, and how many."""
    for count in range(len(names) - 1, 0, -1):
        if (chat := session.known.find(names[count - 1])) is not None:
            return chat.forked(), count
    return new_chat(kiosk), 0


def _draw_of(body: Mapping[str, Any]) -> Draw:
    """A picture for sure where `modalities` names pictures alone; else the model decides."""
    modalities = body.get("modalities") or []
    if not isinstance(modalities, list) or not {"text", "image"} >= {str(kind) for kind in modalities}:
        raise invalid("modalities are none that there are here, expected a list of text and image", "modalities")
    return Draw.ALWAYS if modalities == ["image"] else Draw.AUTO


@dataclass(frozen=True)
class _Told:
    """How one answer is told, and remembered."""

    kiosk: Kiosk
    session: Session
    chat: VisitorChat
    digest: str
    asked: Asked

    def whole(self, drawn: Drawn) -> dict[str, Any]:
        self._remember()
        choices = []
        for index, picture in enumerate(drawn.pictures or (None,)):
            images = {} if picture is None else {"images": [_image_json(drawn, picture)]}
            message = {"role": "assistant", "content": drawn.text, "refusal": None, **images}
            choices.append({"index": index, "message": message, "finish_reason": "stop", "logprobs": None})
        usage = self.asked.tokens.drawn(self.kiosk, drawn).of_chat()
        return {**self._head(_new_id(), "chat.completion"), "choices": choices, "usage": usage}

    async def streamed(self, job: Job, *, with_usage: bool) -> AsyncGenerator[bytes, None]:
        head = self._head(_new_id(), "chat.completion.chunk")
        yield _chunk(head, {"role": "assistant", "content": ""})
        text = ""
        async with aclosing(followed(self.kiosk, job)) as events:
            async for event in events:
                match event:
                    case None:
                        yield KEEP_ALIVE
                    case TextAdded(delta):
                        text += delta
                        yield _chunk(head, {"content": delta})
                    case Finished(drawn):
                        self._remember()
                        for chunk in self._last(head, drawn, drawn.text[len(text) :], with_usage=with_usage):
                            yield chunk
                    case Failed(error):
                        yield server_event(error.to_json())
                    case Cancelled():
                        return

    def _last(self, head: dict[str, Any], drawn: Drawn, text: str, *, with_usage: bool) -> list[bytes]:
        """`text`: what was held back of it."""
        chunks = [_chunk(head, {"content": text})] if text else []
        for index, picture in enumerate(drawn.pictures):
            chunks.append(_chunk(head, {"images": [_image_json(drawn, picture)]}, index=index))
        chunks += [_chunk(head, {}, index=index, end="stop") for index in range(max(1, len(drawn.pictures)))]
        if with_usage:
            usage = self.asked.tokens.drawn(self.kiosk, drawn).of_chat()
            chunks.append(server_event({**head, "choices": [], "usage": usage}))
        return [*chunks, server_event("[DONE]")]

    def _head(self, name: str, kind: str) -> dict[str, Any]:
        return {"id": name, "object": kind, "created": now_s(), "model": model_name(self.kiosk)}

    def _remember(self) -> None:
        self.session.known.put(self.digest, self.chat)


def _new_id() -> str:
    return f"chatcmpl-{secrets.token_urlsafe(16)}"


def _chunk(head: dict[str, Any], delta: dict[str, Any], *, index: int = 0, end: str | None = None) -> bytes:
    return server_event({**head, "choices": [{"index": index, "delta": delta, "finish_reason": end}]})


def _image_json(drawn: Drawn, picture: DrawnPicture) -> dict[str, Any]:
    url = data_url(picture.file.data, picture.file.media_type)
    return {"type": "image_url", "image_url": {"url": url}, "index": 0, **own_fields(drawn, picture)}


ROUTES = [Route("/v1/chat/completions", completions, methods=["POST"])]
