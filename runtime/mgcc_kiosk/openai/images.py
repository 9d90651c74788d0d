"""`/v1/images/generations` and `/v1/images/edits`: a picture of a text, or of pictures and a text."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mgcc_kiosk.drawing.encoding import Rendering, data_url
from mgcc_kiosk.drawing.events import Cancelled, Drawn, Failed, Finished, StepDone
from mgcc_kiosk.drawing.jobs import Job, Kind, Order
from mgcc_kiosk.endpoints.asked import check_parts
from mgcc_kiosk.kiosk import Kiosk, kiosk_of
from mgcc_kiosk.openai.asked import partial_images_of, picture_options, showing_of
from mgcc_kiosk.openai.carrying import finished, followed
from mgcc_kiosk.openai.edit_forms import edit_of
from mgcc_kiosk.openai.shapes import Tokens, base64_text, now_s, own_fields, size_text
from mgcc_kiosk.wire import fields
from mgcc_kiosk.wire.bodies import read_json_object
from mgcc_kiosk.wire.streams import KEEP_ALIVE, EventStream, server_event
from mgcc_runtime.prompt import Part


class _Events(str, enum.Enum):
    """What the events of a stream are called."""

    GENERATION = "image_generation"
    EDIT = "image_edit"


async def generations(request: Request) -> Response:
    body = await read_json_object(request, kiosk_of(request).settings.limits)
    return await _draw(request, body, [fields.text(body, "prompt")], _Events.GENERATION)


async def edits(request: Request) -> Response:
    body, parts = await edit_of(request, kiosk_of(request).settings.limits)
    return await _draw(request, body, parts, _Events.EDIT)


async def _draw(request: Request, body: Mapping[str, Any], parts: Sequence[Part], events: _Events) -> Response:
    kiosk = kiosk_of(request)
    await run_in_threadpool(check_parts, kiosk, parts)
    as_url = fields.word(body, "response_format", ["b64_json", "url"], "b64_json") == "url"
    options, partial_images = picture_options(kiosk, body), partial_images_of(body)
    showing = showing_of(kiosk, body, options, partial_images)
    session = kiosk.session(request)
    work = kiosk.artist.story(parts, options, showing)
    job = kiosk.submit(session, Order(Kind.STORY, session.name, work, showing.pictures))
    told = _Told(kiosk, showing.rendering, Tokens.read(kiosk, parts), events)
    if fields.flag(body, "stream"):
        return EventStream(told.streamed(job, partial_images))
    return JSONResponse(told.whole(await finished(request, kiosk, job), as_url=as_url))


@dataclass(frozen=True)
class _Told:
    """How one request's pictures are told."""

    kiosk: Kiosk
    rendering: Rendering
    tokens: Tokens
    events: _Events

    def whole(self, drawn: Drawn, *, as_url: bool) -> dict[str, Any]:
        """The answer of a request that is no stream."""
        data = []
        for picture in drawn.pictures:
            file = picture.file
            shown = {"url": data_url(file.data, file.media_type)} if as_url else {"b64_json": base64_text(file.data)}
            data.append({**shown, **own_fields(drawn, picture)})
        text = {"text": drawn.text} if drawn.text else {}
        return {
            "created": now_s(), "data": data, "output_format": self.rendering.format.value, "background": "opaque",
            "size": size_text(self.kiosk, self.rendering), "usage": self.tokens.drawn(self.kiosk, drawn).of_images(),
            **text,
        }  # fmt: skip

    async def streamed(self, job: Job, partial_images: int) -> AsyncGenerator[bytes, None]:
        """Partial images as they come, then each picture."""
        shown: dict[int, int] = {}  # picture -> partial images of it so far
        async with aclosing(followed(self.kiosk, job)) as events:
            async for event in events:
                match event:
                    case None:
                        yield KEEP_ALIVE
                    case StepDone(picture, _, _, bytes() as image) if shown.get(picture, 0) < partial_images:
                        index = shown.get(picture, 0)
                        shown[picture] = index + 1
                        yield self._event("partial_image", image, {"partial_image_index": index, "picture": picture})
                    case Finished(drawn):
                        usage = {"usage": self.tokens.drawn(self.kiosk, drawn).of_images()}
                        for one in drawn.pictures:
                            yield self._event("completed", one.file.data, {**usage, **own_fields(drawn, one)})
                    case Failed(error):
                        yield server_event(error.to_json(), "error")
                    case Cancelled():
                        return

    def _event(self, name: str, image: bytes, more: Mapping[str, Any]) -> bytes:
        kind = f"{self.events.value}.{name}"
        told = {
            "type": kind, "b64_json": base64_text(image), "created_at": now_s(), "background": "opaque",
            "output_format": self.rendering.format.value, "quality": "auto",
            "size": size_text(self.kiosk, self.rendering), **more,
        }  # fmt: skip
        return server_event(told, kind)


ROUTES = [
    Route("/v1/images/generations", generations, methods=["POST"]),
    Route("/v1/images/edits", edits, methods=["POST"]),
]
