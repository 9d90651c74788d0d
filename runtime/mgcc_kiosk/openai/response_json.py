"""A response of OpenAI's API as an object: queued, under way, and with what was drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mgcc_kiosk.drawing.events import Cancelled, Drawn, DrawnPicture, Failed, Finished
from mgcc_kiosk.drawing.jobs import Job, State
from mgcc_kiosk.kiosk import Kiosk
from mgcc_kiosk.openai.asked import model_name
from mgcc_kiosk.openai.dialogue import Asked
from mgcc_kiosk.openai.shapes import base64_text, now_s, own_fields
from mgcc_kiosk.visitors.chats import VisitorChat
from mgcc_kiosk.visitors.response_ids import secret_of
from mgcc_runtime.reading import parse_json

_STATUS = {State.QUEUED: "queued", State.RUNNING: "in_progress"}


@dataclass(eq=False)
class KeptResponse:
    """One that a client may come back to, with the chat that goes on from it."""

    kiosk: Kiosk
    asked: Asked
    chat: VisitorChat
    body: Mapping[str, Any]  # what the client told of itself, for what an answer repeats
    job: Job
    id: str
    with_recipe: bool = field(default=False, kw_only=True)
    created_s: int = field(default_factory=now_s)

    def to_json(self) -> dict[str, Any]:
        """As it is now."""
        end = self.job.end
        match end:
            case Finished(drawn):
                return self.completed(drawn)
            case Failed(error):
                told = {"code": "server_error", "message": error.message}
                return self._json("failed", error=told)
            case Cancelled():
                return self._json("cancelled")
            case None:
                return self._json(_STATUS[self.job.state])

    def in_progress(self) -> dict[str, Any]:
        """As a stream begins."""
        return self._json("in_progress")

    def completed(self, drawn: Drawn) -> dict[str, Any]:
        output = [message_json(self.message_id, drawn.text, "completed")] if drawn.text or not drawn.pictures else []
        for number, picture in enumerate(drawn.pictures):
            output.append(self.call_json(number, "completed", drawn, picture))
        usage = self.asked.tokens.drawn(self.kiosk, drawn).of_response()
        recipe = {"recipe": parse_json(self.chat.recipe(), "recipe")} if self.with_recipe else {}
        return self._json("completed", output=output, usage=usage, completed_at=now_s(), **recipe)

    @property
    def message_id(self) -> str:
        return f"msg_{secret_of(self.id)}"

    def call_json(
        self, number: int, status: str, drawn: Drawn | None = None, picture: DrawnPicture | None = None
    ) -> dict[str, Any]:
        """The picture as the result of a call of the tool `image_generation`."""
        name = f"ig_{secret_of(self.id)}_{number}"
        told: dict[str, Any] = {"id": name, "type": "image_generation_call", "status": status}
        if drawn is None or picture is None:
            return {**told, "result": None}
        kind = picture.file.media_type.partition("/")[2]
        size = f"{picture.file.width}x{picture.file.height}"
        result = base64_text(picture.file.data)
        return {**told, "result": result, "output_format": kind, "size": size, **own_fields(drawn, picture)}

    def _json(self, status: str, **more: Any) -> dict[str, Any]:
        body = self.body
        return {
            "id": self.id, "object": "response", "created_at": self.created_s, "status": status, "error": None,
            "incomplete_details": None, "instructions": body.get("instructions"), "model": model_name(self.kiosk),
            "output": [], "parallel_tool_calls": False, "previous_response_id": body.get("previous_response_id"),
            "tool_choice": body.get("tool_choice") or "auto", "tools": body.get("tools") or [], "temperature": None,
            "top_p": None, "truncation": body.get("truncation") or "disabled", "metadata": body.get("metadata") or {},
            "background": bool(body.get("background")), "store": True, "usage": None, **more,
        }  # fmt: skip


def message_json(name: str, text: str, status: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    shown = content if status == "completed" else []
    return {"id": name, "type": "message", "role": "assistant", "status": status, "content": shown}
