"""From what was read to the scene of a picture: where things stand, and the UNet's conditioning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import Grounder
from mgcc_runtime.in_context.grounding import InContextGrounder
from mgcc_runtime.layout import BoxMode, Labels, Layout, layout_from_boxes, layout_from_grounder, placed_boxes
from mgcc_runtime.picture.phrases import PhraseBook
from mgcc_runtime.prompt import Prompt, PromptBuilder
from mgcc_runtime.request import Request
from mgcc_runtime.scene import Scene, with_ids
from mgcc_runtime.stages import Floats, Stages
from mgcc_runtime.stopwatch import Stopwatch
from mgcc_runtime.text.context import Context
from mgcc_runtime.text.writing import Written


@dataclass(frozen=True)
class Imagining:
    """Of one bundle; it holds no state of a request."""

    bundle: Bundle
    stages: Stages
    prompts: PromptBuilder
    labels: Labels
    phrases: PhraseBook
    in_context: InContextGrounder | None = None

    def arrange(self, context: Context, request: Request, watch: Stopwatch) -> Layout:
        """Where things stand (COGM), or where the user wants them; the items have ids."""
        manifest = self.bundle.manifest
        if isinstance(request.boxes, tuple):
            boxes = with_ids(request.boxes)
            return layout_from_boxes(boxes, [self._embed(box.label, watch) for box in boxes], manifest.dimensions)
        if request.boxes is BoxMode.NONE:
            return Layout.empty(manifest.dimensions)
        if request.grounder is Grounder.IN_CONTEXT:
            return self._written(context, watch)
        with watch.measure("grounder"):
            found = self.stages.ground(context.features)
            layout = layout_from_grounder(found, context.words, self.labels, manifest.dimensions, manifest.layout)
        return replace(layout, items=with_ids(layout.items))

    def _written(self, context: Context, watch: Stopwatch) -> Layout:
        assert self.in_context is not None, "a request asks for no grounder that the bundle lacks"
        manifest = self.bundle.manifest
        objects = self.in_context.ground(context.told, watch).objects()
        boxes = with_ids(placed_boxes(objects, manifest.dimensions, manifest.layout))
        return layout_from_boxes(boxes, [self._embed(box.label, watch) for box in boxes], manifest.dimensions)

    def check(self, prompt: Prompt, request: Request) -> None:
        """ContextLimitError, before anything is read, if its grounder has no room for such a prompt."""
        if self.in_context is not None and request.grounder is Grounder.IN_CONTEXT and request.boxes is BoxMode.AUTO:
            self.in_context.lines(prompt.parts)

    def scene(self, context: Context, request: Request, layout: Layout, written: Written, watch: Stopwatch) -> Scene:
        """[IMG] tokens after the context's cache, refined (CMRM) and mapped to the UNet's conditioning."""
        with watch.measure("llm_image_tokens"):
            image_features = self.stages.read(self.prompts.image_token_embeddings, context.end.cache).features
        with watch.measure("refiner"):
            conditioning = self.stages.refine(image_features, context.features)
        return Scene.first(self.bundle.digest, request, conditioning, layout, written)

    def other(self, scene: Scene, request: Request, watch: Stopwatch) -> Scene:
        """The scene of another request on the same reading."""
        return scene.redrawn(request, partial(self._embed, watch=watch), self.bundle.manifest.dimensions)

    def _embed(self, label: str, watch: Stopwatch) -> Floats:
        with watch.measure("grounder"):
            return self.phrases.embed(label)
