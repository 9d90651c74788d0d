"""A chat as a file: what was said, seeds and boxes, and no cache. By the same bundle the same comes of it, bit for bit.

That holds with the same packages on the same kind of machine: another build of an engine sums in another order.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.conversation.shelf import Kept
from mgcc_runtime.conversation.turns import Memory, Past, Picture
from mgcc_runtime.decoding import TextOptions
from mgcc_runtime.errors import InputError
from mgcc_runtime.images.borrowed import open_image
from mgcc_runtime.layout import BoxMode
from mgcc_runtime.prompt import Part
from mgcc_runtime.reading import parse_json, read_json
from mgcc_runtime.request import Request
from mgcc_runtime.text.writing import Written
from mgcc_runtime.values import is_whole, shown

if TYPE_CHECKING:
    from mgcc_runtime.pipeline import Pipeline

SCHEMA = 1


def recipe_of(bundle: Bundle, overflow: str, memory: Memory) -> bytes:
    """The file's content."""
    told = {
        "schema": SCHEMA, "bundle": bundle.digest, "overflow": overflow, "whole": memory.whole,
        "oldest": memory.oldest, "turns": [_turn_json(past) for past in memory.turns],
    }  # fmt: skip
    return (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode()


def read_recipe(pipeline: Pipeline, source: Path | bytes) -> tuple[str, Memory]:
    """What to do when the context is full, and the turns; InputError if that is not a chat of this bundle.

    `source`: the file, or its content.
    """
    name = "chat" if isinstance(source, bytes) else f"chat {source}"
    values = parse_json(source, name) if isinstance(source, bytes) else read_json(source, "chat")
    try:
        if values["schema"] != SCHEMA:
            raise InputError(f"{name} has schema {shown(values['schema'])}, expected {SCHEMA}; upgrade mgcc-edge")
        if values["bundle"] != pipeline.bundle.digest:
            raise InputError(
                f"{name} is of the bundle {str(values['bundle'])[:12]}..., this one is "
                f"{pipeline.bundle.digest[:12]}...; load that bundle"
            )
        turns = tuple(_turn(pipeline, turn) for turn in values["turns"])
        memory = Memory(turns, _count(values["whole"]), _count(values["oldest"]), Kept(pipeline.shelf))
        if not min(1, len(turns)) <= memory.whole <= len(turns):
            raise ValueError(f"{memory.whole} of {len(turns)} turns are read in one go")
        overflow = str(values["overflow"])
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise InputError(f"{name} is not of the expected form ({error!r}); save it again") from None
    prompts = pipeline.prompts
    prompts.check_length(memory.positions(prompts) + prompts.closing.length, 0)
    return overflow, memory


def _turn_json(past: Past) -> dict[str, Any]:
    images = iter(past.body.images)
    parts = [{"text": part} if isinstance(part, str) else {"image": _png(next(images))} for part in past.parts]
    return {"oldest": past.oldest, "parts": parts, "picture": past.picture and _picture_json(past.picture)}


def _picture_json(picture: Picture) -> dict[str, Any]:
    return {
        "first": _request_json(picture.first),
        "shown": _request_json(picture.shown),
        "written": {"text": picture.written.text, "tokens": list(picture.written.tokens)},
    }


def _request_json(request: Request) -> dict[str, Any]:
    boxes: Any = request.boxes.value if isinstance(request.boxes, BoxMode) else [asdict(box) for box in request.boxes]
    return {
        "seed": request.seed, "steps": request.steps, "guidance": request.guidance, "words": request.words,
        "boxes": boxes, "grounder": request.grounder.value, "text": asdict(request.text),
    }  # fmt: skip


def _png(image: Image.Image) -> str:
    """As the vision encoder has it: from here on it is always that picture."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _turn(pipeline: Pipeline, values: Mapping[str, Any]) -> Past:
    parts = tuple(_part(part) for part in values["parts"])
    body = pipeline.prompts.finish(pipeline.prompts.draft(parts))
    told = values["picture"]
    return Past(parts, body, _count(values["oldest"]), None if told is None else _picture(pipeline, told))


def _part(values: Mapping[str, Any]) -> Part:
    ((kind, value),) = values.items()
    if kind == "text" and isinstance(value, str):
        return value
    if kind != "image":
        raise ValueError(f"a part is {shown(values)}")
    return open_image(io.BytesIO(base64.b64decode(value, validate=True)))


def _picture(pipeline: Pipeline, values: Mapping[str, Any]) -> Picture:
    first, shown_now = (_request(pipeline, values[name]) for name in ("first", "shown"))
    written = Written(str(values["written"]["text"]), tuple(map(_count, values["written"]["tokens"])))
    return Picture(first, shown_now, written, Kept(pipeline.shelf))


def _request(pipeline: Pipeline, values: Mapping[str, Any]) -> Request:
    return pipeline.request(
        seed=values["seed"], steps=values["steps"], guidance=values["guidance"], words=values["words"],
        boxes=values["boxes"], grounder=values.get("grounder"), text=TextOptions(**values["text"]),
    )  # fmt: skip


def _count(value: object) -> int:
    if not is_whole(value) or int(value) < 0:
        raise ValueError(f"{shown(value)} is no count")
    return int(value)
