"""A chat that is brought here as its recipe: it was another server's, or this one's before it was started anew."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mgcc_kiosk.errors import ApiError, api_error, invalid
from mgcc_kiosk.kiosk import Kiosk
from mgcc_kiosk.settings import Limits
from mgcc_kiosk.visitors.chats import VisitorChat
from mgcc_kiosk.wire.pictures_in import from_data_url
from mgcc_runtime import InputError
from mgcc_runtime.conversation.shelf import Shelf


def resumed_chat(kiosk: Kiosk, recipe: object, shelf: Shelf) -> VisitorChat:
    """Read again from its parts when it goes on; ApiError. `shelf` will keep its pictures. For a thread.

    Whoever brings a recipe may have written it: what no turn may have, it may not have either.
    """
    if not isinstance(recipe, dict):
        raise invalid("recipe is no object, expected one as this server gives it; give it back as it came", "recipe")
    limits = kiosk.settings.limits
    turns = recipe.get("turns")
    if isinstance(turns, list) and len(turns) > limits.turns:
        raise invalid(
            f"the recipe has {len(turns)} turns, at most {limits.turns} are taken; go on from an earlier one", "recipe"
        )
    for number, turn in enumerate(turns if isinstance(turns, list) else []):
        _check_turn(kiosk, turn, f"turn {number} of the recipe")
    try:
        chat = VisitorChat.resumed(kiosk.artist, json.dumps(recipe).encode(), recipe, shelf)
    except InputError as error:
        raise api_error(error) from None
    for text in [turn.picture.text for turn in chat.turns if turn.picture is not None and turn.picture.text]:
        kiosk.filters.check_answer(None, text)
    return chat


def _check_turn(kiosk: Kiosk, turn: object, name: str) -> None:
    """What the runtime does not know: limits and filters. Its form is the runtime's to judge."""
    given = turn.get("parts") if isinstance(turn, Mapping) else None
    parts = [part for part in given if isinstance(part, Mapping)] if isinstance(given, list) else []
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    limits = kiosk.settings.limits
    if len(parts) > limits.parts or sum(map(len, texts)) > limits.text_chars:
        raise invalid(f"{name} has more parts or characters than are taken; go on from another one", "recipe")
    images = [part["image"] for part in parts if "image" in part]
    if images and not kiosk.settings.pictures_taken:
        raise invalid(f"{name} has a picture, and none are taken here, expected texts alone", "recipe")
    for image in images:
        _check_picture(image, limits, name)
    kiosk.filters.check_texts(texts)


def _check_picture(image: object, limits: Limits, name: str) -> None:
    try:
        from_data_url(f"data:image/png;base64,{image}", limits, f"a picture of {name}")
    except ApiError as error:
        error.param = "recipe"
        raise
