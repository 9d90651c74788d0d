"""A visitor's chat: the runtime's, and beside it what a page wants to see of each turn."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mgcc_kiosk.drawing.encoding import Format, Rendering
from mgcc_kiosk.drawing.events import Finished, JobEvent
from mgcc_kiosk.drawing.jobs import Work
from mgcc_kiosk.drawing.pictures import Answer, Artist, Showing
from mgcc_kiosk.errors import ApiError, Code
from mgcc_runtime import Box, Cancel, Note, Stream
from mgcc_runtime.conversation.chat import UNDO_DEPTH, Chat
from mgcc_runtime.conversation.shelf import Kept, Shelf
from mgcc_runtime.prompt import Part
from mgcc_runtime.request import Draw, RedrawOptions, RequestOptions


@dataclass(frozen=True)
class ShownPicture:
    """How a turn's picture was drawn last."""

    seed: int
    boxes: tuple[Box, ...] | None  # None: of a chat that was brought here, not known before it is drawn again
    notes: tuple[Note, ...]
    text: str
    size: tuple[int, int]
    version: int  # another one for each drawing, so that no cache mistakes them
    png: Kept[bytes]


@dataclass(frozen=True)
class TurnRecord:
    texts: tuple[str | None, ...]  # by part; None: a picture
    positions: int  # of the language model's context
    picture: ShownPicture | None


class VisitorChat:
    """Its work runs in the worker's thread; all else is called while no job of it waits or runs."""

    def __init__(self, artist: Artist, chat: Chat, shelf: Shelf, turns: tuple[TurnRecord, ...] = ()) -> None:
        """`shelf` keeps the pictures of all chats."""
        self.id = secrets.token_urlsafe(16)
        self._artist, self._chat, self._shelf = artist, chat, shelf
        self.turns = turns
        self._before: deque[tuple[TurnRecord, ...]] = deque(maxlen=UNDO_DEPTH)
        self._versions = 0

    @classmethod
    def resumed(cls, artist: Artist, recipe: bytes, told: dict[str, Any], shelf: Shelf) -> VisitorChat:
        """Of a recipe, as bytes and parsed; InputError. Its pictures come back as they are drawn again."""
        chat = artist.pipeline.resume(recipe)
        side = artist.pipeline.bundle.manifest.dimensions.image_px
        records = []
        for parts, turn in zip(chat.turns, told["turns"], strict=True):
            picture = None
            if turn["picture"] is not None:
                shown, text = turn["picture"]["shown"], turn["picture"]["written"]["text"]
                boxes = shown["boxes"]
                known = None if isinstance(boxes, str) else tuple(_box(box) for box in boxes)
                picture = ShownPicture(int(shown["seed"]), known, (), text, (side, side), 0, Kept(shelf))
            records.append(_record(artist, parts, picture))
        return cls(artist, chat, shelf, tuple(records))

    def forked(self) -> VisitorChat:
        other = VisitorChat(self._artist, self._chat.fork(), self._shelf, self.turns)
        other._before.extend(self._before)
        return other

    @property
    def can_undo(self) -> bool:
        return bool(self._before or self.turns)

    def undo(self) -> None:
        """ApiError if there is nothing to take back."""
        if not self.can_undo:
            raise ApiError(Code.NOTHING_TO_UNDO, "the chat has no turn to take back; send one first")
        self._chat.undo()
        self.turns = self._before.pop() if self._before else self.turns[:-1]

    def recipe(self) -> bytes:
        return self._chat.recipe()

    def turn(self, parts: Sequence[Part], options: RequestOptions, showing: Showing, draw: Draw = Draw.ALWAYS) -> Work:
        """Add a turn and draw it."""

        def work(cancel: Cancel) -> Generator[JobEvent, None, None]:
            asked = self._artist.previewed(options, showing)
            stream = self._chat.stream(*parts, draw=draw, cancel=cancel, **asked)
            answer = yield from self._drawn(stream, showing, cancel)
            picture = self._shown(answer) if answer.results else None
            left = self.turns[len(self.turns) + 1 - len(self._chat.turns) :]  # where the runtime has dropped the oldest
            self._remember((*left, _record(self._artist, tuple(parts), picture)))
            yield Finished(answer.drawn(len(self.turns) - 1))

        return work

    def redraw(self, turn: int, options: RedrawOptions, showing: Showing) -> Work:
        """Draw a turn's picture again."""

        def work(cancel: Cancel) -> Generator[JobEvent, None, None]:
            asked = self._artist.previewed(options, showing)
            stream = self._chat.stream_redraw(turn, cancel=cancel, **asked)
            answer = yield from self._drawn(stream, showing, cancel)
            record = replace(self.turns[turn], picture=self._shown(answer))
            self._remember((*self.turns[:turn], record, *self.turns[turn + 1 :]))
            yield Finished(answer.drawn(turn))

        return work

    def _drawn(self, stream: Stream, showing: Showing, cancel: Cancel) -> Generator[JobEvent, None, Answer]:
        """A job that ends before its last picture leaves the chat as it was."""
        remembered = threading.Event()
        try:
            answer = yield from self._artist.draw(stream, showing, cancel, remembered.set)
        except BaseException:
            if remembered.is_set():
                self._chat.undo()
            raise
        return answer

    def _shown(self, answer: Answer) -> ShownPicture:
        """Its first picture, kept as it was given where that is the whole of it."""
        self._versions += 1
        result, file = answer.results[0], answer.drawn().pictures[0].file
        size = result.image.size
        whole = file.media_type == Format.PNG.media_type and (file.width, file.height) == size
        data = file.data if whole else Rendering().picture(result.image).data
        png: Kept[bytes] = Kept(self._shelf)
        png.put(data, len(data))
        return ShownPicture(result.seed, result.boxes, result.notes, result.text, size, self._versions, png)

    def _remember(self, turns: tuple[TurnRecord, ...]) -> None:
        self._before.append(self.turns)
        self.turns = turns


def _record(artist: Artist, parts: Sequence[Part], picture: ShownPicture | None) -> TurnRecord:
    texts = tuple(part if isinstance(part, str) else None for part in parts)
    return TurnRecord(texts, artist.pipeline.prompts.draft(parts).length, picture)


def _box(told: Mapping[str, Any]) -> Box:
    left, top, right, bottom = told["xyxy"]
    return Box(told["label"], (left, top, right, bottom), told["score"], told["id"])
