"""A conversation: each turn adds texts and images to what was read before, and nothing is read twice.

The language model is causal, so what it made of the parts so far stays valid whatever follows. A turn reads its own
parts into the kept cache, then the closing pieces of the template into a branch of it, and answers from there; the
next turn goes on from before the closing. So a turn gives what `Pipeline.generate` gives for all parts so far.
The model's own texts are not read back: the picture follows what the user said.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mgcc_runtime.errors import ContextLimitError, InputError
from mgcc_runtime.lifetime import working
from mgcc_runtime.options import check_word
from mgcc_runtime.prompt import Draft, Part, Prompt
from mgcc_runtime.request import Draw, Request, RequestOptions
from mgcc_runtime.results import Event, ImageReady, Reply, ReplyReady, Result, Stopwatch
from mgcc_runtime.streams import Stream

if TYPE_CHECKING:
    from typing import Unpack  # novm: Python 3.11; checkers alone read it

    from mgcc_runtime.pipeline import Context, Pipeline

Turn = tuple[Part, ...]


class Overflow(str, enum.Enum):
    """What happens when a turn no longer fits the language model's context.

    Dropping goes on until the turns left and the new one fill at most half of the context, and reads these again. So
    such a full reading makes room for several turns: of 40 turns of 24 tokens in a context of 160, 10 were read whole
    where dropping only what had to go took 35. A new turn of more than half is kept alone.
    """

    REFUSE = "refuse"
    DROP_OLDEST = "drop-oldest"  # forget the oldest turns


@dataclass(frozen=True)
class _Past:
    """A turn that was read: as it was given, and as it is read again, whatever becomes of its files meanwhile."""

    parts: Turn
    body: Prompt  # without what stands before it


@dataclass(frozen=True)
class _Memory:
    """Turns that are read, and what the reading left."""

    turns: tuple[_Past, ...] = ()
    context: Context | None = None

    @property
    def length(self) -> int:
        return self.context.length if self.context else 0


@dataclass(frozen=True)
class _Plan:
    """One turn to come: what it goes on from, what to read after what, and the turns that are then known."""

    memory: _Memory
    prompt: Prompt
    before: Context | None
    turns: tuple[_Past, ...]


class Chat:
    """Made by `Pipeline.chat()`. One turn at a time; a refused, failed or cancelled turn leaves it as it was."""

    def __init__(self, pipeline: Pipeline, overflow: Overflow) -> None:
        self._pipeline, self._overflow = pipeline, overflow
        self._memory = _Memory()
        self._remembering = threading.Lock()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns that the next answer will know, as they were given; their files are not read again."""
        return tuple(past.parts for past in self._memory.turns)

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

    def stream(self, *parts: Part, draw: Draw = Draw.ALWAYS, **options: Unpack[RequestOptions]) -> Stream:
        """`send`, or with Draw.AUTO `answer`, as a stream of events. The turn is remembered once it is answered.

        Raises an InputError here, not at the first event; ContextLimitError if the turn does not fit. The events
        raise an InputError where another turn was remembered since this call; that one stays.
        """
        watch = Stopwatch()
        with working(), watch.measure("prompt"):
            request, draw = self._pipeline.request(**options), check_word("draw", Draw, draw)
            plan = self._plan(parts, request.words)
        return Stream(self._run(plan, request, watch, draw), self._pipeline.lifetime)

    def _plan(self, parts: Turn, words: int) -> _Plan:
        prompts, memory = self._pipeline.prompts, self._memory
        head = prompts.separator if memory.turns else prompts.opening
        draft = prompts.draft(parts)
        length = memory.length + head.length + draft.length + prompts.closing.length
        kept = memory.turns
        try:
            prompts.check_length(length, words, exact=draft.exact)
        except ContextLimitError:
            if self._overflow is Overflow.REFUSE or not memory.turns:
                raise
            kept = self._newest(memory.turns, draft, words)
        new = _Past(parts, prompts.finish(draft))
        if len(kept) == len(memory.turns):
            return _Plan(memory, Prompt.join([head, new.body]), memory.context, (*kept, new))
        pieces = [prompts.opening]
        for past in kept:
            pieces += [past.body, prompts.separator]
        return _Plan(memory, Prompt.join([*pieces, new.body]), None, (*kept, new))

    def _newest(self, turns: tuple[_Past, ...], draft: Draft, words: int) -> tuple[_Past, ...]:
        """The last turns that with the new one fill half of the context; ContextLimitError if that one is too long."""
        prompts = self._pipeline.prompts
        length = prompts.opening.length + draft.length + prompts.closing.length
        prompts.check_length(length, words, exact=draft.exact)
        room = min(self._pipeline.bundle.manifest.dimensions.context // 2, prompts.room(words))
        first = len(turns)
        while first and (length := length + turns[first - 1].body.length + prompts.separator.length) <= room:
            first -= 1
        return turns[first:]

    def _run(self, plan: _Plan, request: Request, watch: Stopwatch, draw: Draw) -> Generator[Event, None, None]:
        pipeline = self._pipeline
        self._check_current(plan)
        context = pipeline.read(plan.prompt, watch, plan.before)
        asked = pipeline.read(pipeline.prompts.closing, watch, context)
        for event in pipeline.answer(asked, request, watch, draw):
            with self._remembering:
                self._check_current(plan)
                if isinstance(event, ImageReady | ReplyReady):
                    self._memory = _Memory(plan.turns, context)
            yield event

    def _check_current(self, plan: _Plan) -> None:
        if self._memory is not plan.memory:
            raise InputError(
                "the chat has remembered another turn since this one began, expected one turn at a time; "
                "that turn is kept, send this one again"
            )
