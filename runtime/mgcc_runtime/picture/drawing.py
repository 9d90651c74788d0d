"""From a scene to its picture: noise, denoising by the schedule, pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from mgcc_runtime.bundle.manifest import LinearPreview
from mgcc_runtime.denoise import Latents, Schedule, denoise, initial_noise
from mgcc_runtime.engines import Feed, host_array
from mgcc_runtime.images.conversion import likeness, to_image
from mgcc_runtime.layout import BoxMode, joined
from mgcc_runtime.picture.phrases import PhraseBook
from mgcc_runtime.request import Preview, Request
from mgcc_runtime.results import NOTHING_TO_PLACE, Event, ImageReady, Note, Result, StepPreview
from mgcc_runtime.scene import Scene
from mgcc_runtime.stages import Floats, Stages
from mgcc_runtime.stopwatch import Stopwatch


@dataclass(frozen=True)
class Drawing:
    """Draws the scenes of one bundle; it holds no state of a request."""

    stages: Stages
    schedule: Schedule
    phrases: PhraseBook
    linear: LinearPreview | None

    def draw(self, scene: Scene, watch: Stopwatch) -> Iterator[Event]:
        """A StepPreview for each step, then the ImageReady."""
        request, d = scene.request, self.stages.dimensions
        # noise to latents
        steps = self.schedule.table(request.steps).evaluations
        noise = initial_noise(request.seed, (1, d.latent_channels, d.latent_px, d.latent_px))
        for step, x in enumerate(self._denoise(scene, noise, watch), 1):
            latents = x
            yield StepPreview(step, steps, self._preview(request, step, latents, watch))

        # latents to pixels
        with watch.measure("vae_decoder"):
            image = to_image(self.stages.decode(latents))
        written, boxes = scene.written, scene.layout.items
        yield ImageReady(
            Result(image, written.text, boxes, watch.timings(), request.seed, written.tokens, scene, _notes(scene))
        )

    def _preview(self, request: Request, step: int, latents: Feed, watch: Stopwatch) -> Image.Image | None:
        if not request.preview_every or step % request.preview_every:
            return None
        with watch.measure("preview"):
            if request.preview is Preview.LINEAR and self.linear is not None:
                return likeness(host_array(latents), self.linear, self.stages.dimensions.image_px)
            return to_image(self.stages.decode(latents))

    def _denoise(self, scene: Scene, noise: Latents, watch: Stopwatch) -> Iterator[Feed]:
        guidance, conditioning = scene.request.guidance, scene.conditioning
        table = self.schedule.table(scene.request.steps)
        gated = self.stages.dimensions.gated
        grounded_until = self.schedule.gated_evaluations(table) if gated else table.evaluations

        views = self.phrases.views(scene.layout)

        def predict(i: int, x: Feed, timestep: float) -> Feed:
            if i >= grounded_until:
                with watch.measure("unet"):
                    return self.stages.predict(x, timestep, guidance, conditioning, None)
            seen = []
            for view in views:
                with watch.measure("unet"):
                    seen.append(self.stages.predict(x, timestep, guidance, conditioning, view))
            return seen[0] if len(seen) == 1 else joined([host_array(prediction) for prediction in seen])

        # where the UNet's call only queues it, the solver's waits for both, and nearly all of that is the UNet's
        waiting = "unet" if self.stages.sessions["unet"].queues else "solver"

        def advance(coefficients: Floats, latents: Sequence[Feed], predictions: Sequence[Feed]) -> Feed:
            with watch.measure(waiting):
                return self.stages.advance(coefficients, latents, predictions)

        return denoise(table, noise, predict, advance)


def _notes(scene: Scene) -> tuple[Note, ...]:
    return (NOTHING_TO_PLACE,) if scene.request.boxes is BoxMode.AUTO and not scene.layout.items else ()
