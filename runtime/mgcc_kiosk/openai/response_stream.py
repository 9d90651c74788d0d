"""The events of a streamed response, in the order in which OpenAI's client takes them.

The runtime writes its text before it draws, so the message, where there is one, comes before the pictures.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from mgcc_kiosk.drawing.events import BoxesFound, Cancelled, Drawn, Failed, Finished, StepDone, TextAdded
from mgcc_kiosk.openai.carrying import followed
from mgcc_kiosk.openai.response_json import KeptResponse, message_json
from mgcc_kiosk.openai.shapes import base64_text
from mgcc_kiosk.wire.streams import KEEP_ALIVE, server_event


class ResponseStream:
    """Of one response, told once."""

    def __init__(self, response: KeptResponse, partial_images: int) -> None:
        self._response, self._partial_images = response, partial_images
        self._sequence = 0
        self._text, self._message_open = "", False
        self._items = 0  # begun so far
        self._calls: dict[int, dict[str, Any]] = {}  # picture -> what its events repeat
        self._partials: dict[int, int] = {}  # picture -> partial images so far

    async def told(self) -> AsyncGenerator[bytes, None]:
        response = self._response
        yield self._event("created", response=response.in_progress())
        yield self._event("in_progress", response=response.in_progress())
        async with aclosing(followed(response.kiosk, response.job)) as events:
            async for event in events:
                match event:
                    case None:
                        yield KEEP_ALIVE
                    case TextAdded(delta):
                        for one in self._add_text(delta):
                            yield one
                    case BoxesFound(picture, boxes):
                        for one in self._open_call(picture, boxes=[box.to_json() for box in boxes]):
                            yield one
                    case StepDone(picture, step, _, image):
                        for one in self._step(picture, step, image):
                            yield one
                    case Finished(drawn):
                        for one in self._finish(drawn):
                            yield one
                    case Failed() | Cancelled():
                        yield self._event("failed", response=response.to_json())

    def _step(self, picture: int, step: int, image: bytes | None) -> Iterator[bytes]:
        call = self._calls[picture]
        if step == 1:
            yield self._event("image_generation_call.generating", **call)
        if image is not None and (count := self._partials.get(picture, 0)) < self._partial_images:
            self._partials[picture] = count + 1
            yield self._event(
                "image_generation_call.partial_image", partial_image_index=count,
                partial_image_b64=base64_text(image), **call,
            )  # fmt: skip

    def _add_text(self, delta: str) -> Iterator[bytes]:
        name, place = self._response.message_id, {"output_index": 0, "content_index": 0}
        if not self._message_open:
            self._message_open, self._items = True, 1
            yield self._event("output_item.added", output_index=0, item=message_json(name, "", "in_progress"))
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield self._event("content_part.added", item_id=name, part=part, **place)
        self._text += delta
        yield self._event("output_text.delta", item_id=name, delta=delta, logprobs=[], **place)

    def _close_text(self) -> Iterator[bytes]:
        if not self._message_open:
            return
        self._message_open = False
        name, place = self._response.message_id, {"output_index": 0, "content_index": 0}
        whole = message_json(name, self._text, "completed")
        yield self._event("output_text.done", item_id=name, text=self._text, logprobs=[], **place)
        yield self._event("content_part.done", item_id=name, part=whole["content"][0], **place)
        yield self._event("output_item.done", output_index=0, item=whole)

    def _open_call(self, picture: int, **own: Any) -> Iterator[bytes]:
        yield from self._close_text()
        item = self._response.call_json(picture, "in_progress")
        self._calls[picture] = {"output_index": self._items, "item_id": item["id"]}
        self._items += 1
        yield self._event("output_item.added", output_index=self._calls[picture]["output_index"], item=item)
        yield self._event("image_generation_call.in_progress", **self._calls[picture], **own)

    def _finish(self, drawn: Drawn) -> Iterator[bytes]:
        if missing := drawn.text[len(self._text) :]:  # was held back until a filter had judged it
            if self._calls:
                self._text = drawn.text
            else:
                yield from self._add_text(missing)
        yield from self._close_text()
        for number, picture in enumerate(drawn.pictures):
            call = self._calls[number]
            yield self._event("image_generation_call.completed", **call)
            item = self._response.call_json(number, "completed", drawn, picture)
            yield self._event("output_item.done", output_index=call["output_index"], item=item)
        yield self._event("completed", response=self._response.completed(drawn))

    def _event(self, name: str, **more: Any) -> bytes:
        kind = f"response.{name}"
        told = {"type": kind, "sequence_number": self._sequence, **more}
        self._sequence += 1
        return server_event(told, kind)
