"""The pipeline: texts and images in, the next image, its boxes and a text out."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from mgcc_runtime.abilities import Abilities
from mgcc_runtime.bundle.cpu_remark import cpu_remark
from mgcc_runtime.bundle.folder import Bundle, Check
from mgcc_runtime.cancelling import Cancel, own_cancel
from mgcc_runtime.contract import Grounder
from mgcc_runtime.conversation.chat import Chat, Overflow
from mgcc_runtime.conversation.recipe import read_recipe
from mgcc_runtime.conversation.shelf import Shelf
from mgcc_runtime.decoding import TextOptions
from mgcc_runtime.denoise import Schedule
from mgcc_runtime.engines import Compiled, DecodeGraphs, EngineOptions
from mgcc_runtime.in_context.grounding import InContextGrounder
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.layout import BoxMode, Labels
from mgcc_runtime.lifetime import Lifetime, working
from mgcc_runtime.names import SCHEDULE
from mgcc_runtime.notes.remarks import notes_on_request
from mgcc_runtime.options import PICTURES, USUAL_CHAT_BYTES, check_word
from mgcc_runtime.picture.drawing import Drawing
from mgcc_runtime.picture.imagining import Imagining
from mgcc_runtime.picture.phrases import PhraseBook
from mgcc_runtime.prompt import Part, Prompt, PromptBuilder
from mgcc_runtime.request import Boxes, RedrawOptions, Request, RequestOptions
from mgcc_runtime.results import BoxesReady, Event, ImageReady, Reply, ReplyReady, Result, TextDelta
from mgcc_runtime.scene import Scene
from mgcc_runtime.stages import Stages
from mgcc_runtime.stopwatch import Stopwatch
from mgcc_runtime.streams import Stream
from mgcc_runtime.text.context import Context, Told
from mgcc_runtime.text.deciding import DrawDecision
from mgcc_runtime.text.pieces import read_in_pieces, see_in_pieces
from mgcc_runtime.text.writing import Written, write_text

if TYPE_CHECKING:
    from typing import Unpack  # novm: Python 3.11; checkers alone read it

_LOG = logging.getLogger(__name__)


class Pipeline:
    """An opened bundle. It holds no state of a request, so a failed or cancelled one leaves it as it was, and
    several streams may run side by side. Use it as a context manager, or call `close`."""

    def __init__(self, bundle: Bundle, options: EngineOptions, chat_bytes: int = USUAL_CHAT_BYTES) -> None:
        with working():
            self.bundle = bundle
            self.schedule = Schedule.load(bundle.file(SCHEDULE))
            self.prompts = PromptBuilder(bundle)
            self.labels = Labels(bundle)
            self.decision = DrawDecision(bundle)
            self.stages = Stages(bundle, options)
            encode = self.stages.encode_phrase if bundle.manifest.dimensions.phrase_encoder else None
            self.phrases = PhraseBook(bundle, self.labels, encode)
            self._abilities = Abilities(bundle, self.schedule, self.phrases)
            written = InContextGrounder.of(bundle, self.stages, self.prompts) if bundle.manifest.in_context else None
            self.imagining = Imagining(bundle, self.stages, self.prompts, self.labels, self.phrases, written)
            self.drawing = Drawing(self.stages, self.schedule, self.phrases, bundle.manifest.preview)
        self.shelf = Shelf(chat_bytes)
        self.lifetime = Lifetime("the pipeline", self.stages.close)

    @classmethod
    def load(
        cls, path: str | Path, *, threads: int = 0, check: Check = Check.HASHES,
        decode_graphs: DecodeGraphs = DecodeGraphs.MEASURED, chat_bytes: int = USUAL_CHAT_BYTES,
    ) -> Pipeline:  # fmt: skip
        """Open the bundle at `path`. `threads` of one stage, 0 for one each core. BundleError or EngineError.

        What an engine compiles for this machine is kept in $MGCC_CACHE, or the system's folder for caches. A warning
        is logged where this CPU computes otherwise than the one that the bundle was measured on. `decode_graphs`: of
        TensorRT alone, whether steps of a text are captured as CUDA graphs; by default while that is seen to save time.
        `chat_bytes`: the most memory that all chats together keep of what they have read; beyond that, what was used
        longest ago is dropped, and read again from the turns' parts when it is wanted.
        """
        options = EngineOptions(threads, Compiled.KEPT, decode_graphs)
        bundle = Bundle.open(path, check_word("check", Check, check))
        if remark := cpu_remark(bundle.manifest):
            _LOG.warning("%s", remark)
        return cls(bundle, options, chat_bytes)

    def generate(
        self,
        parts: Sequence[Part],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        words: int = 0,
        boxes: Boxes = BoxMode.AUTO,
        grounder: Grounder | str | None = None,
        text: TextOptions | None = None,
        cancel: Cancel | None = None,
    ) -> Result:
        """Draw the next image and, if `words` > 0, write up to that many words. See `stream` for the arguments."""
        *_, last = self.stream(
            parts, seed=seed, steps=steps, guidance=guidance, words=words, boxes=boxes, grounder=grounder, text=text,
            cancel=cancel,
        )  # fmt: skip
        assert isinstance(last, ImageReady)
        return last.result

    def stream(
        self,
        parts: Sequence[Part],
        *,
        cancel: Cancel | None = None,
        **options: Unpack[RequestOptions],
    ) -> Stream:
        """The same as a stream of events: TextDelta..., BoxesReady, StepPreview..., ImageReady.

        `parts`: texts (str) and images (path or PIL image) in order. `seed` sets the noise and sampled text.
        `steps` and `guidance`: None for the bundle's defaults. `boxes`: "auto", "none" (the bare background), or a list
        of `Box` or {"label", "xyxy"} in pixels of the output image. `grounder`: what proposes them, "layout-head" or
        "in-context", None for the bundle's usual one. `preview_every`: a preview image every so many
        steps, by `preview` "exact", by the decoder, or "linear", a blurred likeness that costs next to nothing.
        Bad input raises an InputError here, not at the first event. `cancel`, or closing the iterator, ends the
        request from any thread within one call of a stage: the first by a CancelledError, the second without one.
        """
        watch = Stopwatch(own_cancel(cancel))
        with working(), watch.measure("prompt"):
            request = self.request(**options)
            prompt = self.prompts.build(parts, request.words, watch.cancel)
            self.imagining.check(prompt, request)
        events = self.with_notes(self._run(prompt, request, watch), parts, request)
        return Stream(events, self.lifetime, watch.cancel)

    def with_notes(
        self, events: Generator[Event, None, None], parts: Sequence[Part], request: Request
    ) -> Generator[Event, None, None]:
        """The events, the picture's with notes on what `parts` ask for in vain; none where its boxes were given."""
        with closing(events):
            for event in events:
                if isinstance(event, ImageReady) and request.boxes is BoxMode.AUTO:
                    texts, most = [p for p in parts if isinstance(p, str)], self.bundle.manifest.dimensions.objects
                    notes = notes_on_request(texts, event.result, self.labels.names, most)
                    yield ImageReady(replace(event.result, notes=(*event.result.notes, *notes)))
                else:
                    yield event

    def generate_several(
        self, parts: Sequence[Part], n: int, *, cancel: Cancel | None = None, **options: Unpack[RequestOptions]
    ) -> tuple[Result, ...]:
        """`n` pictures of one reading, of the seeds from `seed` on: each is what `generate` draws of that seed.

        The text is written once, of the first seed.
        """
        n = PICTURES.check(n)
        *_, last = self.stream(parts, cancel=cancel, **options)
        assert isinstance(last, ImageReady)
        first = last.result
        others = (self.redraw(first.scene, seed=first.seed + i, cancel=cancel) for i in range(1, n))
        return (first, *(replace(other, notes=first.notes) for other in others))

    def redraw(self, scene: Scene, *, cancel: Cancel | None = None, **options: Unpack[RedrawOptions]) -> Result:
        """Draw a picture again, with other boxes or another seed: only UNet and decoder run. See `stream_redraw`."""
        *_, last = self.stream_redraw(scene, cancel=cancel, **options)
        assert isinstance(last, ImageReady)
        return last.result

    def stream_redraw(self, scene: Scene, *, cancel: Cancel | None = None, **options: Unpack[RedrawOptions]) -> Stream:
        """`redraw` as a stream of events: BoxesReady, StepPreview..., ImageReady.

        `scene` is `Result.scene` of this bundle; None leaves a thing as it was. `boxes` is "none", or a list as for
        `stream`: a box with the id and the label of one that the picture has had keeps that one's phrase embedding;
        any other is a new thing, and a LayoutError says where this bundle cannot draw it.
        """
        watch = Stopwatch(own_cancel(cancel))
        with working(), watch.measure("prompt"):
            request = self.other_request(scene, **options)
        return Stream(self.draw_again(scene, request, watch), self.lifetime, watch.cancel)

    def draw_again(self, scene: Scene, request: Request, watch: Stopwatch) -> Generator[Event, None, None]:
        """What follows a redrawing's checks."""
        other = self.imagining.other(scene, request, watch)
        yield BoxesReady(other.layout.items)
        yield from self.drawing.draw(other, watch)

    def request(self, **options: Unpack[RequestOptions]) -> Request:
        """The options of `stream`, checked, with the bundle's defaults; an InputError names what cannot be used."""
        self.lifetime.check()
        return self._abilities.request(**options)

    def other_request(self, scene: Scene, **options: Unpack[RedrawOptions]) -> Request:
        """The options of `stream_redraw`, checked, with what is left out as it was."""
        self.lifetime.check()
        return self._abilities.other_request(scene, **options)

    def chat(self, overflow: Overflow = Overflow.REFUSE) -> Chat:
        """A conversation that keeps what it has read; `overflow` says what to do when the context is full."""
        return Chat(self, check_word("overflow", Overflow, overflow))

    def resume(self, recipe: str | Path | bytes) -> Chat:
        """The conversation that `Chat.save` wrote, by this bundle; InputError if it cannot be gone on with.

        `recipe`: the file's path, or its content as `Chat.recipe` gives it.
        Nothing is read before its next turn or redrawing, which gives what it would have given then, bit for bit.
        """
        self.lifetime.check()
        overflow, memory = read_recipe(self, recipe if isinstance(recipe, bytes) else Path(recipe))
        return Chat(self, check_word("overflow", Overflow, overflow), memory)

    def _run(self, prompt: Prompt, request: Request, watch: Stopwatch) -> Generator[Event, None, None]:
        yield from self.answer(self.read(prompt, watch), request, watch)

    def answer(
        self, context: Context, request: Request, watch: Stopwatch, turn: Prompt | None = None
    ) -> Iterator[Event]:
        """Everything after the reading: text, layout, conditioning, denoising, pixels.

        With a `turn`, the last one of a dialogue, a picture only if it asks for one.
        """
        # the text goes on from the context's cache
        written = Written("", ())
        for longer in self._write(context, request, watch):
            if delta := longer.text[len(written.text) :]:
                yield TextDelta(delta)
            written = longer

        if turn is not None and not self.decision.asks(context, turn, self.prompts.closing.length):
            yield ReplyReady(Reply(written.text, watch.timings(), request.seed, written.tokens))
            return

        layout = self.imagining.arrange(context, request, watch)
        yield BoxesReady(layout.items)
        scene = self.imagining.scene(context, request, layout, written, watch)
        yield from self.drawing.draw(scene, watch)

    def read(self, prompt: Prompt, watch: Stopwatch, before: Context | None = None) -> Context:
        """Pass a prompt, its images included, through the language model, going on from `before`."""
        manifest, visual = self.bundle.manifest, None
        if prompt.images:
            visual = see_in_pieces(self.stages, prompt.images, manifest.vision, watch)
        with watch.measure("llm_prefill"):
            embeddings = self.prompts.embed_prompt(prompt, visual)
        cache = KvCache.empty(manifest.dimensions) if before is None else before.end.cache
        end = read_in_pieces(self.stages, embeddings, cache, watch)
        told = None if before is None else before.told
        if prompt.parts:
            seen = iter(visual if visual is not None else ())
            told = Told(tuple(next(seen) if part is None else part for part in prompt.parts), told)
        if before is None:
            return Context(prompt.words, end.features, end, told)
        features = np.concatenate([before.features, end.features], axis=1)
        return Context(before.words + prompt.words, features, end, told)

    def _write(self, context: Context, request: Request, watch: Stopwatch) -> Iterator[Written]:
        return write_text(self.stages, self.prompts, self.bundle.manifest.tokens, context.end, request, watch)

    def close(self) -> None:
        """Free the engines' memory; may be called from any thread, at any time and more than once.

        It waits for the stages that run just then. Requests that are under way end with a ClosedError at their next
        stage. In a forked child it does nothing: the parent has the engines.
        """
        self.lifetime.end()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
