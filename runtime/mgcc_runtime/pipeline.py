"""The pipeline: texts and images in, the next image, its boxes and a text out."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from mgcc_runtime.bundle import Bundle, Check
from mgcc_runtime.chat import Chat, Overflow
from mgcc_runtime.cpu_remark import cpu_remark
from mgcc_runtime.decoding import TextOptions, wants_picture
from mgcc_runtime.denoise import Latents, Schedule, denoise, initial_noise
from mgcc_runtime.engines import Compiled, DecodeGraphs, EngineOptions, Feed, host_array
from mgcc_runtime.errors import OptionError
from mgcc_runtime.images import pixel_values, to_image
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.layout import BoxMode, Labels, Layout, joined, layout_from_grounder, parse_boxes
from mgcc_runtime.lifetime import Lifetime, working
from mgcc_runtime.names import SCHEDULE
from mgcc_runtime.options import check_word
from mgcc_runtime.phrases import PhraseBook
from mgcc_runtime.prompt import Part, Prompt, PromptBuilder
from mgcc_runtime.request import Boxes, Draw, Request, box_mode
from mgcc_runtime.results import (
    NOTHING_TO_PLACE,
    BoxesReady,
    Event,
    ImageReady,
    Note,
    Reply,
    ReplyReady,
    Result,
    StepPreview,
    Stopwatch,
    TextDelta,
)
from mgcc_runtime.stages import Floats, LlmStep, Stages
from mgcc_runtime.streams import Stream
from mgcc_runtime.writing import Written, write_text

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What the language model has read so far; everything else goes on from here."""

    words: tuple[str, ...]  # the user's word at each of the S positions
    features: Floats  # f_mm (1, S, D_f)
    end: LlmStep  # logits of the last position, and the cache

    @property
    def length(self) -> int:
        return len(self.words)


class Pipeline:
    """An opened bundle. It holds no state of a request, so a failed or cancelled one leaves it as it was, and
    several streams may run side by side. Use it as a context manager, or call `close`."""

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        with working():
            self.bundle = bundle
            self.schedule = Schedule.load(bundle.file(SCHEDULE))
            self.prompts = PromptBuilder(bundle)
            self.labels = Labels(bundle)
            self.stages = Stages(bundle, options)
            encode = self.stages.encode_phrase if bundle.manifest.dimensions.phrase_encoder else None
            self.phrases = PhraseBook(bundle, self.labels, encode)
        self.lifetime = Lifetime("the pipeline", self.stages.close)

    @classmethod
    def load(
        cls, path: str | Path, *, threads: int = 0, check: Check = Check.HASHES,
        decode_graphs: DecodeGraphs = DecodeGraphs.MEASURED,
    ) -> Pipeline:  # fmt: skip
        """Open the bundle at `path`. `threads` of one stage, 0 for one each core. BundleError or EngineError.

        What an engine compiles for this machine is kept in $MGCC_CACHE, or the system's folder for caches. A warning
        is logged where this CPU computes otherwise than the one that the bundle was measured on. `decode_graphs`: of
        TensorRT alone, whether steps of a text are captured as CUDA graphs; by default while that is seen to save time.
        """
        options = EngineOptions(threads, Compiled.KEPT, decode_graphs)
        bundle = Bundle.open(path, check_word("check", Check, check))
        if remark := cpu_remark(bundle.manifest):
            _LOG.warning("%s", remark)
        return cls(bundle, options)

    def generate(
        self,
        parts: Sequence[Part],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        words: int = 0,
        boxes: Boxes = BoxMode.AUTO,
        text: TextOptions | None = None,
    ) -> Result:
        """Draw the next image and, if `words` > 0, write up to that many words. See `stream` for the arguments."""
        options = {"seed": seed, "steps": steps, "guidance": guidance, "words": words, "boxes": boxes, "text": text}
        *_, last = self.stream(parts, **options)  # type: ignore[arg-type]
        assert isinstance(last, ImageReady)
        return last.result

    def stream(
        self,
        parts: Sequence[Part],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        words: int = 0,
        boxes: Boxes = BoxMode.AUTO,
        text: TextOptions | None = None,
        preview_every: int = 0,
    ) -> Stream:
        """The same as a stream of events: TextDelta..., BoxesReady, StepPreview..., ImageReady.

        `parts`: texts (str) and images (path or PIL image) in order. `seed` sets the noise and sampled text.
        `steps` and `guidance`: None for the bundle's defaults. `boxes`: "auto", "none" (the bare background), or a list
        of `Box` or {"label", "xyxy"} in pixels of the output image. `preview_every`: a preview image every so many
        steps. Bad input raises an InputError here, not at the first event. Closing the iterator cancels the request,
        also from another thread.
        """
        watch = Stopwatch()
        with working(), watch.measure("prompt"):
            request = self.request(
                seed=seed, steps=steps, guidance=guidance, words=words, boxes=boxes, text=text,
                preview_every=preview_every,
            )  # fmt: skip
            prompt = self.prompts.build(parts, request.words)
        return Stream(self._run(prompt, request, watch), self.lifetime)

    def request(
        self, *, seed: int = 0, steps: int | None = None, guidance: float | None = None, words: int = 0,
        boxes: Boxes = BoxMode.AUTO, text: TextOptions | None = None, preview_every: int = 0,
    ) -> Request:  # fmt: skip
        """The options of `stream`, checked, with the bundle's defaults; an InputError names what cannot be used."""
        self.lifetime.check()
        manifest = self.bundle.manifest
        if guidance is not None and manifest.dimensions.distilled:
            raise OptionError(f"guidance is {guidance}, but this bundle's UNet has it in its weights; leave it out")
        mode = box_mode(boxes)
        request = Request(
            seed=seed,
            steps=manifest.default_steps if steps is None else steps,
            guidance=manifest.default_guidance if guidance is None else guidance,
            words=words,
            boxes=parse_boxes(boxes, manifest.dimensions.image_px) if mode is None else mode,
            text=TextOptions() if text is None else text,
            preview_every=preview_every,
        )
        self.schedule.table(request.steps)
        if isinstance(request.boxes, tuple):
            self.phrases.check(request.boxes)
        return request

    def chat(self, overflow: Overflow = Overflow.REFUSE) -> Chat:
        """A conversation that keeps what it has read; `overflow` says what to do when the context is full."""
        return Chat(self, check_word("overflow", Overflow, overflow))

    def _run(self, prompt: Prompt, request: Request, watch: Stopwatch) -> Generator[Event, None, None]:
        yield from self.answer(self.read(prompt, watch), request, watch)

    def answer(self, context: Context, request: Request, watch: Stopwatch, draw: Draw = Draw.ALWAYS) -> Iterator[Event]:
        """Everything after the reading: text, layout, conditioning, denoising, pixels."""
        # the text goes on from the context's cache
        written = Written("", ())
        for longer in self._write(context, request, watch):
            if delta := longer.text[len(written.text) :]:
                yield TextDelta(delta)
            written = longer

        if draw is Draw.AUTO and not wants_picture(context.end.logits, self.bundle.manifest.tokens.image):
            yield ReplyReady(Reply(written.text, watch.timings(), request.seed, written.tokens))
            return

        # where things stand (COGM), or where the user wants them
        layout = self._arrange(context, request, watch)
        yield BoxesReady(layout.items)

        # [IMG] tokens after the same cache, refined (CMRM) and mapped to the UNet's conditioning
        conditioning = self._imagine(context, watch)

        # noise to latents
        steps = self.schedule.table(request.steps).evaluations
        noise = initial_noise(request.seed, self._latent_shape)
        for step, x in enumerate(self._denoise(request, noise, conditioning, layout, watch), 1):
            latents = x
            yield StepPreview(step, steps, self._preview(request, step, latents, watch))

        # latents to pixels
        with watch.measure("vae_decoder"):
            image = to_image(self.stages.decode(latents))
        timings, notes = watch.timings(), self._notes(request, layout)
        yield ImageReady(Result(image, written.text, layout.items, timings, request.seed, written.tokens, notes))

    def _preview(self, request: Request, step: int, latents: Feed, watch: Stopwatch) -> Image.Image | None:
        if not request.preview_every or step % request.preview_every:
            return None
        with watch.measure("preview"):
            return to_image(self.stages.decode(latents))

    def read(self, prompt: Prompt, watch: Stopwatch, before: Context | None = None) -> Context:
        """Pass a prompt, its images included, through the language model, going on from `before`."""
        manifest, visual = self.bundle.manifest, None
        if prompt.images:
            with watch.measure("vision_encoder"):
                pixels = pixel_values(prompt.images, manifest.dimensions.vision_px, manifest.vision)
                visual = self.stages.see(pixels)
        with watch.measure("llm_prefill"):
            embeddings = self.prompts.embed_prompt(prompt, visual)
            if before is None:
                end = self.stages.read(embeddings, KvCache.empty(manifest.dimensions))
                return Context(prompt.words, end.features, end)
            end = self.stages.read(embeddings, before.end.cache)
            return Context(before.words + prompt.words, np.concatenate([before.features, end.features], axis=1), end)

    def _write(self, context: Context, request: Request, watch: Stopwatch) -> Iterator[Written]:
        return write_text(
            self.stages, self.prompts, self.bundle.manifest.tokens, context.end,
            words=request.words, seed=request.seed, options=request.text, watch=watch,
        )  # fmt: skip

    def _arrange(self, context: Context, request: Request, watch: Stopwatch) -> Layout:
        manifest = self.bundle.manifest
        with watch.measure("grounder"):
            if isinstance(request.boxes, tuple):
                return self.phrases.layout(request.boxes)
            if request.boxes is BoxMode.NONE:
                return Layout.empty(manifest.dimensions)
            found = self.stages.ground(context.features)
            return layout_from_grounder(found, context.words, self.labels, manifest.dimensions, manifest.layout)

    @staticmethod
    def _notes(request: Request, layout: Layout) -> tuple[Note, ...]:
        return (NOTHING_TO_PLACE,) if request.boxes is BoxMode.AUTO and not layout.items else ()

    def _imagine(self, context: Context, watch: Stopwatch) -> Floats:
        with watch.measure("llm_image_tokens"):
            image_features = self.stages.read(self.prompts.image_token_embeddings, context.end.cache).features
        with watch.measure("refiner"):
            return self.stages.refine(image_features, context.features)

    def _denoise(
        self, request: Request, noise: Latents, conditioning: Floats, layout: Layout, watch: Stopwatch
    ) -> Iterator[Feed]:
        table = self.schedule.table(request.steps)
        gated = self.bundle.manifest.dimensions.gated
        grounded_until = self.schedule.gated_evaluations(table) if gated else table.evaluations

        views = self.phrases.views(layout)

        def predict(i: int, x: Feed, timestep: float) -> Feed:
            with watch.measure("unet"):
                if i >= grounded_until:
                    return self.stages.predict(x, timestep, request.guidance, conditioning, None)
                if len(views) == 1:
                    return self.stages.predict(x, timestep, request.guidance, conditioning, views[0])
                seen = (self.stages.predict(x, timestep, request.guidance, conditioning, view) for view in views)
                return joined([host_array(prediction) for prediction in seen])

        # where the UNet's call only queues it, the solver's waits for both, and nearly all of that is the UNet's
        waiting = "unet" if self.stages.sessions["unet"].queues else "solver"

        def advance(coefficients: Floats, latents: Sequence[Feed], predictions: Sequence[Feed]) -> Feed:
            with watch.measure(waiting):
                return self.stages.advance(coefficients, latents, predictions)

        return denoise(table, noise, predict, advance)

    @property
    def _latent_shape(self) -> tuple[int, int, int, int]:
        d = self.bundle.manifest.dimensions
        return (1, d.latent_channels, d.latent_px, d.latent_px)

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
