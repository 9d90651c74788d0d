"""The objects that the page is given, as docs/serving.md has them."""

from __future__ import annotations

from typing import Any

from mgcc_kiosk.drawing.encoding import data_url
from mgcc_kiosk.drawing.events import (
    BoxesFound,
    Cancelled,
    Drawn,
    DrawnPicture,
    Failed,
    Finished,
    JobEvent,
    Queued,
    Reading,
    StepDone,
    TextAdded,
)
from mgcc_kiosk.drawing.jobs import Job, State
from mgcc_kiosk.kiosk import Kiosk
from mgcc_kiosk.visitors.chats import ShownPicture, VisitorChat
from mgcc_kiosk.visitors.sessions import Session


def job_json(kiosk: Kiosk, job: Job) -> dict[str, Any]:
    order = job.order
    told: dict[str, Any] = {"id": job.id, "kind": order.kind.value, "chat": order.chat, "turn": order.turn,
                            "state": job.state.value}  # fmt: skip
    if job.state in (State.QUEUED, State.RUNNING):
        told |= {"position": kiosk.worker.position(job), "estimate_ms": _tenths(kiosk.worker.estimate_ms(job))}
    if isinstance(job.end, Finished):
        told["result"] = result_json(job.end.drawn)
    if isinstance(job.end, Failed):
        told |= job.end.error.to_json()
    return told


def result_json(drawn: Drawn) -> dict[str, Any]:
    return {
        "turn": drawn.turn, "pictures": [_picture_json(picture) for picture in drawn.pictures],
        "notes": [note.to_json() for note in drawn.notes], "text": drawn.text,
        "timings_ms": {name: round(ms, 1) for name, ms in drawn.timings_ms.items()},
    }  # fmt: skip


def event_json(event: JobEvent) -> tuple[str, dict[str, Any]]:
    """The event's name and data."""
    match event:
        case Queued(position, estimate_ms):
            return "queued", {"position": position, "estimate_ms": _tenths(estimate_ms)}
        case Reading(estimate_ms):
            return "reading", {"estimate_ms": _tenths(estimate_ms)}
        case TextAdded(delta):
            return "text", {"delta": delta}
        case BoxesFound(picture, boxes):
            return "boxes", {"picture": picture, "boxes": [box.to_json() for box in boxes]}
        case StepDone(picture, step, steps, image):
            shown = None if image is None else data_url(image, "image/jpeg")
            return "preview", {"picture": picture, "step": step, "steps": steps, "image": shown}
        case Finished(drawn):
            return "done", {"result": result_json(drawn)}
        case Failed(error):
            return "error", error.to_json()
        case Cancelled():
            return "cancelled", {}


def chat_json(session: Session, chat: VisitorChat) -> dict[str, Any]:
    turns = [
        {
            "turn": number,
            "parts": [{"image": True} if text is None else {"text": text} for text in turn.texts],
            "picture": None if turn.picture is None else _shown_json(chat, number, turn.picture),
        }
        for number, turn in enumerate(chat.turns)
    ]
    return {"id": chat.id, "turns": turns, "undo": chat.can_undo, "jobs": [job.id for job in session.active(chat.id)]}


def _shown_json(chat: VisitorChat, number: int, picture: ShownPicture) -> dict[str, Any]:
    place = f"/api/chats/{chat.id}/turns/{number}/image?v={picture.version}"
    return {
        "seed": picture.seed, "boxes": None if picture.boxes is None else [box.to_json() for box in picture.boxes],
        "notes": [note.to_json() for note in picture.notes], "text": picture.text, "width": picture.size[0],
        "height": picture.size[1], "image": None if picture.png.get() is None else place,
    }  # fmt: skip


def _picture_json(picture: DrawnPicture) -> dict[str, Any]:
    file = picture.file
    return {
        "seed": picture.seed, "boxes": [box.to_json() for box in picture.boxes],
        "image": data_url(file.data, file.media_type), "width": file.width, "height": file.height,
    }  # fmt: skip


def _tenths(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
