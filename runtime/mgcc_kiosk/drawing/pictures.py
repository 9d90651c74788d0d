"""What a job does: pictures of one reading, or of one kept scene, with all that they tell meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from mgcc_kiosk.drawing.encoding import Rendering
from mgcc_kiosk.drawing.events import (
    BoxesFound,
    Drawn,
    DrawnPicture,
    Finished,
    JobEvent,
    StepDone,
    TextAdded,
)
from mgcc_kiosk.drawing.filters import Filters
from mgcc_kiosk.drawing.jobs import Work
from mgcc_runtime import (
    BoxesReady,
    Cancel,
    ImageReady,
    Pipeline,
    Preview,
    Reply,
    ReplyReady,
    Result,
    StepPreview,
    Stream,
    TextDelta,
)
from mgcc_runtime.prompt import Part
from mgcc_runtime.request import RedrawOptions, RequestOptions

Options = TypeVar("Options", RequestOptions, RedrawOptions)


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Showing:
    """How a job's pictures and previews are shown."""

    pictures: int = 1
    rendering: Rendering = field(default_factory=Rendering)
    preview: Preview = Preview.LINEAR
    preview_every: int = 0  # steps; 0: none


@dataclass(frozen=True)
class Artist:
    """Draws with one pipeline what filters let pass. Its methods run in the worker's thread."""

    pipeline: Pipeline
    filters: Filters = field(default_factory=Filters)

    def story(self, parts: Sequence[Part], options: RequestOptions, showing: Showing) -> Work:
        """A picture without a chat."""

        def work(cancel: Cancel) -> Generator[JobEvent, None, None]:
            first = self.pipeline.stream(parts, cancel=cancel, **self.previewed(options, showing))
            answer = yield from self.draw(first, showing, cancel)
            yield Finished(answer.drawn())

        return work

    def previewed(self, options: Options, showing: Showing) -> Options:
        """With previews as they are wanted; none where a filter has to see a picture before anybody else."""
        whole = options.copy()
        whole["preview_every"] = 0 if self.filters.judge_pictures else showing.preview_every
        whole["preview"] = showing.preview
        return whole

    def draw(
        self, first: Stream, showing: Showing, cancel: Cancel, arrived: Callable[[], None] = _nothing
    ) -> Generator[JobEvent, None, Answer]:
        """Take a stream's events, then draw the other pictures of its scene, of the seeds that follow.

        `arrived` is called as soon as the stream has given its answer, before a filter judges it.
        """
        answer = Answer(showing.rendering)
        yield from self._take(first, 0, answer, arrived)
        if answer.reply is not None:
            return answer
        scene, seed = answer.results[0].scene, answer.results[0].seed
        for number in range(1, showing.pictures):
            another = self.previewed(RedrawOptions(seed=seed + number), showing)
            again = self.pipeline.stream_redraw(scene, cancel=cancel, **another)
            yield from self._take(again, number, answer)
        return answer

    def _take(
        self, stream: Stream, number: int, answer: Answer, arrived: Callable[[], None] = _nothing
    ) -> Generator[JobEvent, None, None]:
        for event in stream:
            match event:
                case TextDelta(delta):
                    if not self.filters.judge_texts:
                        yield TextAdded(delta)
                case BoxesReady(boxes):
                    yield BoxesFound(number, boxes)
                case StepPreview(step, steps, image):
                    yield StepDone(number, step, steps, None if image is None else answer.rendering.preview(image))
                case ImageReady(result):
                    arrived()
                    self.filters.check_answer(result.image, result.text)
                    answer.add(result)
                case ReplyReady(reply):
                    arrived()
                    self.filters.check_answer(None, reply.text)
                    answer.reply = reply


@dataclass
class Answer:
    """All that a job has drawn so far."""

    rendering: Rendering
    results: list[Result] = field(default_factory=list)
    reply: Reply | None = None
    _pictures: list[DrawnPicture] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.results.append(result)
        self._pictures.append(DrawnPicture(result.seed, result.boxes, self.rendering.picture(result.image)))

    def drawn(self, turn: int | None = None) -> Drawn:
        if self.reply is not None:
            reply = self.reply
            return Drawn((), (), reply.text, len(reply.text_tokens), reply.timings, turn)
        timings_ms: Counter[str] = Counter()
        for result in self.results:
            timings_ms.update(result.timings)
        first = self.results[0]
        return Drawn(tuple(self._pictures), first.notes, first.text, len(first.text_tokens), dict(timings_ms), turn)
