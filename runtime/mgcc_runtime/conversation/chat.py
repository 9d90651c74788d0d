"""A conversation: each turn adds texts and images to what was read before, and nothing is read twice.

The language model is causal, so what it made of the parts so far stays valid whatever follows. A turn reads its own
parts into the kept cache, then the closing pieces of the template into a branch of it, and answers from there; the
next turn goes on from before the closing. So a turn gives what `Pipeline.generate` gives for all parts so far.
The model's own texts are not read back: the picture follows what the user said.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mgcc_runtime.cancelling import Cancel, own_cancel
from mgcc_runtime.conversation.recipe import recipe_of
from mgcc_runtime.conversation.shelf import Kept
from mgcc_runtime.conversation.turn_lock import TurnLock
from mgcc_runtime.conversation.turns import Memory, Past, Picture, Turn, context_of, scene_of
from mgcc_runtime.errors import ContextLimitError, InputError
from mgcc_runtime.files import write_atomically
from mgcc_runtime.lifetime import working
from mgcc_runtime.options import check_word
from mgcc_runtime.prompt import Part, Prompt
from mgcc_runtime.request import Draw, RedrawOptions, Request, RequestOptions
from mgcc_runtime.results import Event, ImageReady, Reply, ReplyReady, Result
from mgcc_runtime.scene import Scene
from mgcc_runtime.stopwatch import Stopwatch
from mgcc_runtime.streams import Stream
from mgcc_runtime.text.context import Context
from mgcc_runtime.text.writing import Written
from mgcc_runtime.values import is_whole, shown

if TYPE_CHECKING:
    from typing import Unpack  # novm: Python 3.11; checkers alone read it

    from mgcc_runtime.pipeline import Pipeline

UNDO_DEPTH = 32  # changes that can be taken back as they were made; beyond that, turns


class Overflow(str, enum.Enum):
    """What happens when a turn no longer fits the language model's context.

    Dropping goes on until the turns left and the new one fill at most half of the context, and reads these again. So
    such a full reading makes room for several turns: of 40 turns of 24 tokens in a context of 160, 10 were read whole
    where dropping only what had to go took 35. A new turn of more than half is kept alone.
    """

    REFUSE = "refuse"
    DROP_OLDEST = "drop-oldest"  # forget the oldest turns


class Chat:
    """Made by `Pipeline.chat()` and `resume()`. A refused, failed or cancelled turn leaves it as it was.

    One turn at a time: another waits, from its first event on, and then goes on from the turn before.
    """

    def __init__(self, pipeline: Pipeline, overflow: Overflow, memory: Memory | None = None) -> None:
        self._pipeline, self._overflow = pipeline, overflow
        self._memory = Memory((), 0, 0, Kept(pipeline.shelf)) if memory is None else memory
        self._before: deque[Memory] = deque(maxlen=UNDO_DEPTH)
        self._lock = TurnLock(pipeline.lifetime)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns that the next answer will know, as they were given; their files are not read again."""
        return tuple(past.parts for past in self._memory.turns)

    def send(self, *parts: Part, cancel: Cancel | None = None, **options: Unpack[RequestOptions]) -> Result:
        """Add a turn of texts and images, and draw what stands now. The options are those of `Pipeline.stream`."""
        *_, last = self.stream(*parts, cancel=cancel, **options)
        assert isinstance(last, ImageReady)
        return last.result

    def answer(self, *parts: Part, cancel: Cancel | None = None, **options: Unpack[RequestOptions]) -> Result | Reply:
        """Add a turn and let the model decide whether it asks for a picture; if not, the answer is words alone.

        `words` is 16 unless given, so that there is an answer.
        """
        asked: RequestOptions = {"words": 16, **options}
        *_, last = self.stream(*parts, draw=Draw.AUTO, cancel=cancel, **asked)
        assert isinstance(last, ImageReady | ReplyReady)
        return last.result if isinstance(last, ImageReady) else last.reply

    def stream(
        self, *parts: Part, draw: Draw = Draw.ALWAYS, cancel: Cancel | None = None, **options: Unpack[RequestOptions]
    ) -> Stream:
        """`send`, or with Draw.AUTO `answer`, as a stream of events. The turn is remembered once it is answered.

        Raises an InputError here, not at the first event; ContextLimitError if the turn does not fit. The events raise
        that where another turn came first and this one no longer fits; InputError in the thread of another turn of
        this chat that is under way.
        """
        watch = Stopwatch(own_cancel(cancel))
        with working(), watch.measure("prompt"):
            request, draw = self._pipeline.request(**options), check_word("draw", Draw, draw)
            prompts = self._pipeline.prompts
            draft = prompts.draft(parts)
            self._first_kept(self._memory, draft.length, request.words, exact=draft.exact)
            body = prompts.finish(draft, watch.cancel)
            self._pipeline.imagining.check(body, request)
        events = self._pipeline.with_notes(self._run(parts, body, request, watch, draw), parts, request)
        return Stream(events, self._pipeline.lifetime, watch.cancel)

    def redraw(self, turn: int = -1, *, cancel: Cancel | None = None, **options: Unpack[RedrawOptions]) -> Result:
        """Draw a turn's picture again, the last one's unless told otherwise, and remember how. See `stream_redraw`."""
        *_, last = self.stream_redraw(turn, cancel=cancel, **options)
        assert isinstance(last, ImageReady)
        return last.result

    def stream_redraw(
        self, turn: int = -1, *, cancel: Cancel | None = None, **options: Unpack[RedrawOptions]
    ) -> Stream:
        """`Pipeline.stream_redraw` of the picture that a turn has now; `turn` is an index of `turns`.

        What was read is read again only where there was no room to keep it. The events raise what
        `Pipeline.stream_redraw` raises.
        """
        self._index(self._memory, turn)
        watch = Stopwatch(own_cancel(cancel))
        return Stream(self._run_again(turn, options, watch), self._pipeline.lifetime, watch.cancel)

    def undo(self) -> None:
        """Take back the last turn or redrawing; InputError if there is none. It waits for a turn that is under way."""
        with self._lock.held(Cancel()):
            memory = self._memory
            if self._before:
                self._memory = self._before.pop()
            elif memory.turns:
                left = memory.turns[:-1]
                self._memory = Memory(left, min(memory.whole, len(left)), memory.oldest, Kept(self._pipeline.shelf))
            else:
                raise InputError("the chat has no turn to take back, expected one at least; send one first")

    def fork(self) -> Chat:
        """Another chat that goes on from here; what is read already is read for both."""
        other = Chat(self._pipeline, self._overflow, self._memory)
        other._before.extend(self._before)
        return other

    def save(self, path: str | Path) -> None:
        """Write what `Pipeline.resume` goes on from: the turns' parts, seeds and boxes, as JSON; OutputError.

        Pictures of its turns go in as the model sees them; its own are not kept, since they can be drawn again.
        """
        write_atomically(Path(path), self.recipe())

    def recipe(self) -> bytes:
        """What `save` writes, for a program that keeps it elsewhere than in a file."""
        return recipe_of(self._pipeline.bundle, self._overflow.value, self._memory)

    def _index(self, memory: Memory, turn: object) -> int:
        count = len(memory.turns)
        if not is_whole(turn) or not -count <= int(turn) < count:
            raise InputError(f"turn is {shown(turn)}, but the chat has {count}; choose one by its index in `turns`")
        return int(turn) % count

    def _first_kept(self, memory: Memory, length: int, words: int, *, exact: bool = True) -> int:
        """The index of the first turn that stays when one of `length` positions comes; ContextLimitError."""
        prompts = self._pipeline.prompts
        head = prompts.separator if memory.turns else prompts.opening
        try:
            whole = memory.positions(prompts) + head.length + length + prompts.closing.length
            prompts.check_length(whole, words, exact=exact)
        except ContextLimitError:
            if self._overflow is Overflow.REFUSE or not memory.turns:
                raise
        else:
            return 0
        alone = prompts.opening.length + length + prompts.closing.length
        prompts.check_length(alone, words, exact=exact)
        room = min(self._pipeline.bundle.manifest.dimensions.context // 2, prompts.room(words))
        first = len(memory.turns)
        while first and (alone := alone + memory.turns[first - 1].body.length + prompts.separator.length) <= room:
            first -= 1
        return first

    def _run(
        self, parts: Turn, body: Prompt, request: Request, watch: Stopwatch, draw: Draw
    ) -> Generator[Event, None, None]:
        pipeline = self._pipeline
        with self._lock.held(watch.cancel):
            memory = self._memory
            first = self._first_kept(memory, body.length, request.words)
            oldest = memory.oldest + first
            turns = (*memory.turns[first:], Past(parts, body, oldest))
            # what is no longer all there, is read in one go
            whole = len(turns) if first else max(memory.whole, 1)
            new = Memory(turns, whole, oldest, Kept(pipeline.shelf))
            before = None if first else context_of(pipeline, memory, watch)
            *_, prompt = new.readings(pipeline.prompts, len(turns))
            context = pipeline.read(prompt, watch, before)
            asked = pipeline.read(pipeline.prompts.closing, watch, context)
            for event in pipeline.answer(asked, request, watch, body if draw is Draw.AUTO else None):
                if isinstance(event, ImageReady | ReplyReady):
                    self._remember(_answered(new, event, request, Kept(pipeline.shelf)), context)
                    last = event
                else:
                    yield event
        yield last

    def _run_again(self, turn: int, options: RedrawOptions, watch: Stopwatch) -> Generator[Event, None, None]:
        pipeline = self._pipeline
        with self._lock.held(watch.cancel):
            memory = self._memory
            index = self._index(memory, turn)
            scene = scene_of(pipeline, memory, index, watch)
            request = pipeline.other_request(scene, **options)
            for event in pipeline.draw_again(scene, request, watch):
                if isinstance(event, ImageReady):
                    self._remember(_redrawn(memory, index, event.result, Kept(pipeline.shelf)), None)
                    last = event
                else:
                    yield event
        yield last

    def _remember(self, memory: Memory, context: Context | None) -> None:
        if context is not None:
            memory.context.put(context, context.nbytes)
        # one step back is at hand; whoever goes further waits for a reading
        if self._before and self._before[-1].context not in (self._memory.context, memory.context):
            self._before[-1].context.drop()
        self._before.append(self._memory)
        self._memory = memory


def _answered(memory: Memory, event: ImageReady | ReplyReady, request: Request, kept: Kept[Scene]) -> Memory:
    """With how its last turn was answered."""
    if isinstance(event, ReplyReady):
        return memory
    scene = event.result.scene
    kept.put(scene, scene.nbytes)
    picture = Picture(request, scene.request, Written(event.result.text, event.result.text_tokens), kept)
    return replace(memory, turns=(*memory.turns[:-1], replace(memory.turns[-1], picture=picture)))


def _redrawn(memory: Memory, index: int, result: Result, kept: Kept[Scene]) -> Memory:
    """With another picture of one turn."""
    past = memory.turns[index]
    assert past.picture is not None
    kept.put(result.scene, result.scene.nbytes)
    picture = replace(past.picture, shown=result.scene.request, scene=kept)
    turns = (*memory.turns[:index], replace(past, picture=picture), *memory.turns[index + 1 :])
    return replace(memory, turns=turns)
