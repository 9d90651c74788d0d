"""What chat completions and responses share: a chat that knows the turns before, and the turn that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from mgcc_kiosk.drawing.jobs import Job, Kind, Order
from mgcc_kiosk.drawing.pictures import Showing
from mgcc_kiosk.endpoints.asked import check_parts
from mgcc_kiosk.errors import ApiError, Code
from mgcc_kiosk.kiosk import Kiosk
from mgcc_kiosk.openai.asked import picture_options
from mgcc_kiosk.openai.shapes import Tokens
from mgcc_kiosk.visitors.chats import VisitorChat
from mgcc_kiosk.visitors.sessions import Session
from mgcc_kiosk.wire import fields
from mgcc_runtime import Overflow
from mgcc_runtime.prompt import Part
from mgcc_runtime.request import Draw, RequestOptions

_USUAL_WORDS, _MOST_WORDS = 16, 64  # of an answer; a client's own default is often thousands


@dataclass(frozen=True)
class Asked:
    """One turn, checked."""

    parts: tuple[Part, ...]  # of all turns that the chat does not know yet: one turn of them gives the same picture
    options: RequestOptions
    draw: Draw
    tokens: Tokens

    def submit(self, kiosk: Kiosk, session: Session, chat: VisitorChat, showing: Showing) -> Job:
        """ApiError where it cannot wait."""
        work = chat.turn(self.parts, self.options, showing, self.draw)
        return kiosk.submit(session, Order(Kind.TURN, session.name, work, showing.pictures))


def asked_of(
    kiosk: Kiosk, body: Mapping[str, Any], turns: Sequence[Sequence[Part]], draw: Draw, words: object
) -> Asked:
    """`turns`: those that are new. ApiError. Counts tokens: for a thread."""
    parts = tuple(chain.from_iterable(turns))
    check_parts(kiosk, parts)
    most = fields.whole({"words": words}, "words", 0, 2**31, _USUAL_WORDS)
    options = picture_options(kiosk, {**body, "words": min(most, _MOST_WORDS)})
    return Asked(parts, options, draw, Tokens.read(kiosk, parts))


def new_chat(kiosk: Kiosk, overflow: Overflow = Overflow.REFUSE) -> VisitorChat:
    """Its pictures are the client's to keep."""
    return VisitorChat(kiosk.artist, kiosk.pipeline.chat(overflow), kiosk.no_pictures)


def check_length(kiosk: Kiosk, chat: VisitorChat) -> None:
    """ApiError where it may have no further turn."""
    if (count := len(chat.turns)) >= kiosk.settings.limits.turns:
        raise ApiError(
            Code.TOO_MANY_TURNS, f"the conversation has {count} turns, which is all that it may; begin another"
        )
