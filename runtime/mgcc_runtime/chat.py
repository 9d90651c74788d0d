"""A conversation: each turn adds texts and images to what was read before, and nothing is read twice.

The language model is causal, so what it made of the parts so far stays valid whatever follows. A turn reads its own
parts into the kept cache, then the closing pieces of the template into a branch of it, and answers from there; the
next turn goes on from before the closing. So a turn gives what `Pipeline.generate` gives for all parts so far.
The model's own texts are not read back: the picture follows what the user said.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mgcc_runtime.errors import ContextLimitError
from mgcc_runtime.prompt import Part, Place, Prompt
from mgcc_runtime.request import Draw, Request, RequestOptions
from mgcc_runtime.results import Event, ImageReady, Reply, ReplyReady, Result, Stopwatch

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11; checkers alone read it

    from mgcc_runtime.pipeline import Context, Pipeline

Turn = tuple[Part, ...]


class Overflow(str, enum.Enum):
    """What happens when a turn no longer fits the language model's context."""

    REFUSE = "refuse"
    DROP_OLDEST = "drop-oldest"  # forget the oldest turns, and read the others again


@dataclass(frozen=True)
class _Memory:
    """Turns that are read, and what the reading left."""

    turns: tuple[Turn, ...] = ()
    context: Context | None = None

    @property
    def length(self) -> int:
        return self.context.length if self.context else 0


@dataclass(frozen=True)
class _Plan:
    """One turn to come: what to read, after what, and the turns that are then known."""

    prompt: Prompt
    before: Context | None
    turns: tuple[Turn, ...]


class Chat:
    """Made by `Pipeline.chat()`. One turn at a time; a refused, failed or cancelled turn leaves it as it was."""

    def __init__(self, pipeline: Pipeline, overflow: Overflow) -> None:
        self._pipeline, self._overflow = pipeline, Overflow(overflow)
        self._memory = _Memory()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns that the next answer will know."""
        return self._memory.turns

    def send(self, *parts: Part, **options: Unpack[RequestOptions]) -> Result:
        """Add a turn of texts and images, and draw what stands now. The options are those of `Pipeline.stream`."""
        *_, last = self.stream(*parts, **options)
        assert isinstance(last, ImageReady)
        return last.result

    def answer(self, *parts: Part, **options: Unpack[RequestOptions]) -> Result | Reply:
        """Add a turn and let the model decide whether it asks for a picture; if not, the answer is words alone.

        `words` is 16 unless given, so that there is an answer.
        """
        asked: RequestOptions = {"words": 16}
        asked.update(options)
        *_, last = self.stream(*parts, draw=Draw.AUTO, **asked)
        assert isinstance(last, ImageReady | ReplyReady)
        return last.result if isinstance(last, ImageReady) else last.reply

    def stream(self, *parts: Part, draw: Draw = Draw.ALWAYS, **options: Unpack[RequestOptions]) -> Iterator[Event]:
        """`send`, or with Draw.AUTO `answer`, as a stream of events. The turn is remembered once it is answered.

        Raises an InputError here, not at the first event; ContextLimitError if the turn does not fit.
        """
        watch = Stopwatch()
        with watch.measure("prompt"):
            request = self._pipeline.request(**options)
            plan = self._plan(parts, request.words)
        return self._run(plan, request, watch, draw)

    def _plan(self, parts: Turn, words: int) -> _Plan:
        prompts, memory = self._pipeline.prompts, self._memory
        place = Place.LATER if memory.turns else Place.FIRST
        body = prompts.body(parts, place)
        try:
            prompts.check_length(memory.length + body.length + prompts.closing.length, words)
        except ContextLimitError:
            if self._overflow is Overflow.REFUSE or not memory.turns:
                raise
            return self._forget(parts, words)
        return _Plan(body, memory.context, (*memory.turns, parts))

    def _forget(self, parts: Turn, words: int) -> _Plan:
        """Leave out as many of the oldest turns as it takes; ContextLimitError if the new one alone is too long."""
        prompts = self._pipeline.prompts
        for first in range(1, len(self._memory.turns) + 1):
            turns = (*self._memory.turns[first:], parts)
            body = prompts.body([part for turn in turns for part in turn], Place.FIRST)
            try:
                prompts.check_length(body.length + prompts.closing.length, words)
            except ContextLimitError:
                if len(turns) == 1:
                    raise
                continue
            return _Plan(body, None, turns)
        raise AssertionError("the loop ends with the new turn alone")

    def _run(self, plan: _Plan, request: Request, watch: Stopwatch, draw: Draw) -> Iterator[Event]:
        pipeline = self._pipeline
        context = pipeline.read(plan.prompt, watch, plan.before)
        asked = pipeline.read(pipeline.prompts.closing, watch, context)
        for event in pipeline.answer(asked, request, watch, draw):
            if isinstance(event, ImageReady | ReplyReady):
                self._memory = _Memory(plan.turns, context)
            yield event
