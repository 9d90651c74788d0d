"""Messages of a conversation as turns: what the user said, in texts and pictures.

What a system message or the model itself said is passed over: a picture follows what the user said, in the runtime too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from mgcc_kiosk.errors import invalid
from mgcc_kiosk.settings import Limits
from mgcc_kiosk.wire.pictures_in import from_data_url
from mgcc_runtime.prompt import Part
from mgcc_runtime.values import shown

_TEXTS, _IMAGES = ("text", "input_text"), ("image_url", "input_image")
_ROLES = ("user", "assistant", "system", "developer", "tool")


def turns_of(messages: object, name: str, limits: Limits) -> list[list[Part]]:
    """The user's turns, the last one to be answered; ApiError. A text alone is one. Opens pictures: for a thread."""
    if isinstance(messages, str):
        return [[messages]]
    if not isinstance(messages, Sequence) or not messages:
        raise invalid(f"{name} is {shown(messages)}, expected a list of messages; send one at least", name)
    turns, last = [], "user"
    for number, message in enumerate(messages):
        place = f"{name}[{number}]"
        if not isinstance(message, Mapping):
            raise invalid(f"{place} is {shown(message)}, expected an object with role and content", name)
        if "role" not in message and message.get("type") not in (None, "message"):
            continue  # an item of the answer before, such as a picture: it is known here
        if (last := message.get("role", "")) not in _ROLES:
            raise invalid(f"{place} has the role {shown(last)}, expected {', '.join(_ROLES)}", name)
        if last == "user":
            turns.append(_parts(message.get("content"), place, limits))
    if not turns or last != "user":
        raise invalid(f"{name} ends without a message of the user, expected one; add it", name)
    return turns


def _parts(content: object, place: str, limits: Limits) -> list[Part]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, Sequence) or not content:
        raise invalid(f"{place} has the content {shown(content)}, expected a text or a list of parts", place)
    return [_part(part, f"{place}.content[{number}]", limits) for number, part in enumerate(content)]


def _part(part: object, place: str, limits: Limits) -> Part:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind in _TEXTS and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    if isinstance(part, Mapping) and kind in _IMAGES:
        url: Any = part.get("image_url")
        return from_data_url(url.get("url") if isinstance(url, Mapping) else url, limits, place)
    raise invalid(f"{place} is of the type {shown(kind)}, expected a text or an image_url; leave it out", place)


def digests(turns: Sequence[Sequence[Part]]) -> list[str]:
    """For each turn what stands for it and all before it: the same conversation gives the same."""
    so_far, found = hashlib.sha256(), []
    for turn in turns:
        for part in turn:
            data = part.encode() if isinstance(part, str) else _pixels(part)
            so_far.update(f"{type(part).__name__} {len(data)} ".encode() + data)
        so_far.update(b"|")
        found.append(so_far.hexdigest())
    return found


def _pixels(image: Part) -> bytes:
    assert isinstance(image, Image.Image)
    return f"{image.size} ".encode() + image.tobytes()
