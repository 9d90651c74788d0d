"""The reference pipeline: interleaved texts and images in, the next image, its boxes and a text out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mgcc_ref.box_placement import settle, to_whole_pixels
from mgcc_ref.decoding import TextResult, decode_text
from mgcc_ref.grounded import GroundedObject
from mgcc_ref.in_context.layout import CaptionPart, in_context_layout
from mgcc_ref.model import MgccModel
from mgcc_ref.networks.draw_decision import turn_summary
from mgcc_ref.prompting import Part, build_prompt, last_text, see
from mgcc_ref.schedule import ScheduleTable, compile_schedule
from mgcc_runtime.contract import BARE_VIEWS, STAND_IN, BoxEdges, Grounder, pointed_word
from mgcc_runtime.layout_text import DEFAULT_PROMPT, LayoutPrompt

PRESENCE_THRESHOLD = 0.5
REPETITION_PENALTY = 1.2


@dataclass(frozen=True)
class Layout:
    """The UNet's grounding: boxes (1, N, 4) xyxy, box_mask (1, N), phrase_embeddings (1, N, D_p)."""

    objects: tuple[GroundedObject, ...]
    boxes: Tensor
    box_mask: Tensor
    phrase_embeddings: Tensor

    def told(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors in the order of the stage's inputs."""
        return self.boxes, self.box_mask, self.phrase_embeddings


@dataclass(frozen=True)
class Context:
    """The language model's output for a request: features of all positions, and the cache."""

    words: tuple[str, ...]  # the user's word at each of the S positions
    features: Tensor  # f_mm (1, S, D_f)
    logits: Tensor  # (V,) of the last position
    cache: tuple[Tensor, ...]


@dataclass(frozen=True)
class ReferenceResult:
    image: Image.Image
    text: TextResult
    layout: Layout
    context_features: Tensor
    conditioning: Tensor
    latents: Tensor


class ReferencePipeline:
    """Runs an `MgccModel` on one request at a time, in eager PyTorch with a KV cache."""

    def __init__(self, model: MgccModel) -> None:
        self.model = model

    @torch.no_grad()
    def generate(
        self,
        parts: Sequence[Part],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        words: int = 0,
        boxes: Sequence[GroundedObject] | Grounder | None = None,
    ) -> ReferenceResult:
        """Draw the next image. `boxes` is a layout (empty for the bare background), one of the profile's grounders, or
        None for its first one.

        `seed` sets the first noise; `words` limits the text. ValueError for a prompt that is empty or too long.
        """
        sampler = self.model.profile.sampler
        context = self.read(parts)
        if boxes is None or isinstance(boxes, Grounder):
            layout = self.grounded(parts, context, boxes)
        else:
            layout = self.layout_of(boxes)
        conditioning = self.refine(context)
        text = decode_text(
            self.model, context.logits, context.cache, words=words, repetition_penalty=REPETITION_PENALTY
        )
        table = compile_schedule(sampler, self.model.profile.unet.prediction, steps or sampler.default_steps)
        if guidance is not None and sampler.distilled:
            raise ValueError(f"guidance is {guidance}, but the UNet has it in its weights; leave it out")
        scale = sampler.default_guidance if guidance is None else guidance
        *_, latents = self.denoise(self.initial_noise(seed), table, conditioning, layout, scale)
        image = to_image(self.model.vae_decoder(latents))
        return ReferenceResult(image, text, layout, context.features, conditioning, latents)

    def read(self, parts: Sequence[Part]) -> Context:
        """Pass the request through vision tower and language model."""
        prompt = build_prompt(self.model, parts)
        logits, features, *cache = self.model.llm(prompt.embeddings, *self.model.llm.empty_cache())
        return Context(prompt.words, features, logits[0, 0], tuple(cache))

    @torch.no_grad()
    def draw_logit(self, parts: Sequence[Part]) -> float:
        """The logit of drawing an answer to `parts`, of which the last is the turn's text. ValueError without weights
        of a decision.
        """
        if self.model.decision is None or not isinstance(parts[-1], str):
            raise ValueError("the decision to draw needs its weights and a text; train it with step draw")
        features = self.read(parts).features[0].float()
        return float(self.model.decision(turn_summary(features, last_text(self.model, parts[-1])).unsqueeze(0)))

    def refine(self, context: Context) -> Tensor:
        """Append the [IMG] tokens, refine their features and map them: conditioning (1, N_c, D_c)."""
        tokens = self.model.llm.image_tokens.embeddings.unsqueeze(0)
        _, image_features, *_ = self.model.llm(tokens, *context.cache)
        return self.model.refiner(image_features, context.features, full_mask(context.features))

    def grounded(self, parts: Sequence[Part], context: Context, grounder: Grounder | None = None) -> Layout:
        """The layout by one of the profile's grounders; None: its first."""
        if (grounder or self.model.profile.grounders[0]) is Grounder.LAYOUT_HEAD:
            return self.ground(context)
        objects = self.ground_in_context(parts)
        boxes = torch.tensor([item.box for item in objects]).reshape(-1, 4)
        placed = self._placed(boxes, torch.ones(len(objects), dtype=torch.bool))
        return self.layout_of([replace(o, box=tuple(box)) for o, box in zip(objects, placed.tolist(), strict=True)])

    def ground_in_context(
        self, parts: Sequence[Part], prompt: LayoutPrompt = DEFAULT_PROMPT
    ) -> tuple[GroundedObject, ...]:
        """The layout that the language model writes for these parts. ValueError if it cannot write one."""
        return in_context_layout(self.model, prompt).ground(self.caption_of(parts))

    @torch.no_grad()
    def caption_of(self, parts: Sequence[Part]) -> list[CaptionPart]:
        """The parts with each image replaced by its visual tokens (k, D) float32."""
        seen = iter(see(self.model, parts))
        return [part if isinstance(part, str) else next(seen).float().numpy() for part in parts]

    def _placed(self, boxes: Tensor, kept: Tensor) -> Tensor:
        """Boxes (N, 4) as they are drawn: those `kept` (N,) moved apart, all on the profile's edges."""
        if (limit := self.model.profile.max_overlap) is not None:
            boxes = settle(boxes, kept, limit)
        if self.model.profile.box_edges is BoxEdges.WHOLE_PIXELS:
            boxes = to_whole_pixels(boxes, self.model.profile.image_px)
        return boxes

    def ground(self, context: Context) -> Layout:
        """The layout of the layout head, without objects below the presence threshold."""
        boxes, presence, phrases, pointers = self.model.grounder(context.features, full_mask(context.features))
        kept = (presence >= PRESENCE_THRESHOLD).float()
        boxes = self._placed(boxes[0], kept[0] > 0).unsqueeze(0)
        objects = tuple(
            GroundedObject(self._label(context, phrases[0, i], pointers[0, i]), tuple(boxes[0, i].tolist()), float(p))
            for i, p in enumerate(presence[0])
            if p >= PRESENCE_THRESHOLD
        )
        shown = kept.unsqueeze(-1)
        return Layout(objects, boxes * shown, kept, phrases * shown)

    def _label(self, context: Context, phrase: Tensor, pointer: Tensor) -> str:
        if self.model.labels:
            similarity = torch.cosine_similarity(phrase, self.model.label_embeddings)
            return self.model.labels[int(similarity.argmax())]
        return pointed_word(pointer.tolist(), context.words)

    def layout_of(self, objects: Sequence[GroundedObject]) -> Layout:
        """The layout of these objects. ValueError for more than N of them."""
        limit, width = self.model.profile.max_objects, self.model.profile.clip.text_hidden
        if len(objects) > limit:
            raise ValueError(f"{len(objects)} boxes were given; at most {limit} fit this profile")
        boxes, mask, phrases = torch.zeros(1, limit, 4), torch.zeros(1, limit), torch.zeros(1, limit, width)
        for i, item in enumerate(objects):
            boxes[0, i], mask[0, i] = torch.tensor(item.box), 1.0
            phrases[0, i] = self.model.embed_phrases((item.label,))[0]
        return Layout(tuple(objects), boxes, mask, phrases)

    def views(self, layout: Layout) -> tuple[Layout, ...]:
        """The UNet's input for a layout: the layout itself, or two views if a layout map has no objects.

        GLIGEN's gates were trained on pictures without boxes. See `BARE_VIEWS` for why a layout map was not.
        """
        if layout.objects or self.model.gated:
            return (layout,)
        label = self.model.labels[0] if self.model.labels else STAND_IN
        return tuple(self.layout_of([GroundedObject(label, view.box, 1.0)]) for view in BARE_VIEWS)

    def initial_noise(self, seed: int) -> Tensor:
        """Unit noise (1, C, h, w) float32, equal to the runtime's for this seed."""
        unet = self.model.profile.unet
        shape = (1, unet.latent_channels, unet.latent_px, unet.latent_px)
        return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))

    def denoise(
        self, noise: Tensor, table: ScheduleTable, conditioning: Tensor, layout: Layout, guidance: float | None
    ) -> Iterator[Tensor]:
        """Yield x_{i+1} (1, C, h, w) after each evaluation, by the compiled schedule. GLIGEN's gates act in the first
        `gate_fraction` of the steps.

        `guidance` is None for a UNet with guidance in its weights.
        """
        x_T = x = noise * table.init_scale
        unet, predictions = self.model.stage("unet"), []
        scale = () if guidance is None else (torch.tensor([guidance]),)
        gated_until, views = len(table.timesteps), self.views(layout)
        if self.model.gated:
            gated_until = int(self.model.profile.unet.gate_fraction * len(table.timesteps))
        for i, (timestep, row) in enumerate(zip(table.timesteps, table.matrix, strict=True)):
            t = torch.tensor([timestep])
            if i < gated_until:
                seen = [unet(x, t, *scale, conditioning, *view.told()) for view in views]
                predictions.append(seen[0] if len(seen) == 1 else joined(seen))
            else:
                predictions.append(self.model.unet_plain(x, t, *scale, conditioning))
            x = row[0] * x_T + sum(c * p for c, p in zip(row[1:], predictions, strict=True))
            yield x


def joined(predictions: Sequence[Tensor]) -> Tensor:
    """Predictions (1, C, h, w), one for each of BARE_VIEWS -> the bare picture's prediction."""
    parts = [found[..., view.of(found.shape[-1])] for view, found in zip(BARE_VIEWS, predictions, strict=True)]
    return torch.cat(parts, dim=-1)


def full_mask(features: Tensor) -> Tensor:
    """The mask (B, S) bool for features (B, S, D_f) without padding."""
    return torch.ones(features.shape[:2], dtype=torch.bool)


def to_image(pixels: Tensor) -> Image.Image:
    """(1, 3, H, W) in about [-1, 1] -> PIL. FloatingPointError names the stage if there is a NaN."""
    if not torch.isfinite(pixels).all():
        raise FloatingPointError("stage vae_decoder gave NaN or infinity")
    array = pixels[0].clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(array.contiguous().numpy())
