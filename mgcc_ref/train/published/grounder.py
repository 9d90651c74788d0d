"""Step `grounder` at the paper's scale: boxes of whatever captions name, from COCO or Flickr30k Entities.

There is no list of labels: a query predicts a phrase's CLIP embedding and points at its word in the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from tokenizers import Encoding
from torch import Tensor, nn

from mgcc_ref.model import Alignment
from mgcc_ref.networks.grounder import LayoutHead
from mgcc_ref.pipeline import PRESENCE_THRESHOLD
from mgcc_ref.prompting import preprocess
from mgcc_ref.tokens import encode_captions
from mgcc_ref.train.data.sample import Box, Sample, Samples, Span
from mgcc_ref.train.grounder_targets import Targets
from mgcc_ref.train.loop import Batch
from mgcc_ref.train.published import align
from mgcc_ref.train.published.draws import Draws
from mgcc_ref.train.published.parts import ALIGNED, Setup, Start, begin, with_pictures
from mgcc_ref.train.published.recipes import EARLIER_CHANCE, Recipe
from mgcc_ref.train.published.sequences import PAD, SLOT, Writer, padded
from mgcc_ref.train.steps.grounder import GrounderObjective
from mgcc_ref.weights import load_module, require_file, save_module

FILE = "grounder.safetensors"
FOUND_IOU = 0.5
_EARLIER = 2  # in the seeds for the parts before a request
_SHOWN, _SHOWN_PX = 6, 224


class ReadingObjective(nn.Module):
    """`GrounderObjective` on requests that the frozen language model reads in each step."""

    def __init__(self, start: Start, head: LayoutHead) -> None:
        super().__init__()
        self.objective = GrounderObjective(head.requires_grad_(True).to(start.device))
        if head.rounds == 1:  # `answered` is unused, and several processes would wait for its gradient
            head.answered.requires_grad_(False)
        self._frozen = [start]

    @torch.no_grad()
    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Context features (B, S, D_f) of the batch's requests, and their mask."""
        start, ids = self._frozen[0], batch["ids"]
        embeds = start.llm.embed(ids.clamp_min(0))
        if len(batch["pixels"]):
            embeds = with_pictures(embeds, ids == SLOT, start.model.vision_encoder(batch["pixels"]))
        return start.llm.read(embeds, ids != PAD)[0], ids != PAD

    @torch.no_grad()
    def phrases(self, batch: Batch) -> Tensor:
        """CLIP embeddings of the batch's phrases (B, K, D_p), as GLIGEN uses them; zero where there is none."""
        there = batch["labels"] >= 0
        embedded = self._frozen[0].model.text_encoder(batch["phrase_ids"][there])[1].float()
        return embedded.new_zeros(*there.shape, embedded.shape[-1]).masked_scatter(there.unsqueeze(-1), embedded)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        features, mask = self.features(batch)
        read = {"features": features, "mask": mask, "phrases": self.phrases(batch)}
        loss, metrics = self.objective({**batch, **read}, step)
        # several processes wait for all gradients, even if no caption of a part names its objects
        return loss + 0.0 * sum(p.sum() for p in self.parameters() if p.requires_grad), metrics


@dataclass(frozen=True)
class Example:
    """A request, and the boxes of what it names."""

    ids: tuple[int, ...]
    pixels: Tensor | None  # (1, 3, H_v, W_v) of the picture before it
    targets: Targets  # without phrases, which are embedded in the batch
    names: tuple[str, ...]
    sample: Sample


class PublishedGrounderStep:
    """Reads captions with boxes; needs `alignment.safetensors`, saves `grounder.safetensors`."""

    def __init__(self, setup: Setup, samples: Samples, recipe: Recipe) -> None:
        require_file(setup.weights / align.FILE, setup.profile.argument)
        self._draws = Draws(samples, setup.seed, recipe.held_back)
        self._start = begin(setup, (*ALIGNED, "grounder"))
        model = self._start.model
        load_module(Alignment(model), setup.weights / align.FILE)
        model.vision_encoder.projection.to(self._start.device)
        self._recipe, self._seed, self._writer = recipe, setup.seed, Writer(model)
        self._most = model.profile.max_objects
        self.objective = ReadingObjective(self._start, model.grounder)
        self._draws.at(0, self._with_boxes)  # data without boxes is refused at once

    def _with_boxes(self, sample: Sample) -> Sample | None:
        return sample if sample.phrases else None

    def _example(self, sample: Sample, earlier: Sample | None) -> Example | None:
        if not sample.phrases:
            return None
        shown = None if earlier is None else preprocess(earlier.picture(), self._start.model)
        ids, encoding, start = self._writer.request(sample.caption, None if earlier is None else earlier.caption)
        kept = sample.phrases[: self._most]
        corners = torch.tensor([phrase.box for phrase in kept])
        targets = Targets(
            boxes=torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1),
            regions=torch.zeros(len(kept), 4),
            phrases=torch.zeros(len(kept), 1),
            labels=tuple(range(len(kept))),
            mentions=tuple(
                tuple(start + t - len(ids) for t in last_word_tokens(encoding, sample.caption, phrase.span))
                for phrase in kept
            ),
        )
        return Example(tuple(ids), shown, targets, tuple(phrase.text for phrase in kept), sample)

    def _batch_of(self, examples: Sequence[Example]) -> Batch:
        shown = [example.pixels for example in examples if example.pixels is not None]
        side = self._start.model.profile.clip.image_px
        most = max(len(example.names) for example in examples)
        tokenizer = self._start.model.text_tokenizer
        phrase_ids = [encode_captions(tokenizer, [*e.names, *[""] * (most - len(e.names))]) for e in examples]
        packed = Targets.packed([example.targets for example in examples])
        del packed["phrases"]
        return {
            **packed,
            "ids": padded([example.ids for example in examples], PAD),
            "pixels": torch.cat(shown) if shown else torch.zeros(0, 3, side, side),
            "phrase_ids": torch.stack(phrase_ids),
        }

    def part_of_batch(self, step: int, part: int, parts: int) -> Batch:
        return self._batch_of([self._at(p) for p in self._draws.part(step, self._recipe.batch, part, parts)])

    def _at(self, position: int) -> Example:
        rng = np.random.default_rng([self._seed, _EARLIER, position])
        earlier = None
        if rng.random() < EARLIER_CHANCE:
            earlier = self._draws.samples[int(rng.integers(self._draws.count))]
        return self._draws.at(position, lambda sample: self._example(sample, earlier))

    def batch(self, rng: np.random.Generator) -> Batch:
        return self.part_of_batch(int(rng.integers(2**31)), 0, 1)

    def _held_back(self) -> Iterator[tuple[list[Example], list[list[Box]]]]:
        """Held-back requests with the boxes that the head finds in each."""
        for indices in self._recipe.chunks(self._draws.held_back):
            examples = [self._draws.held(i, lambda sample: self._example(sample, None)) for i in indices]
            yield examples, self._layouts(examples)

    def _layouts(self, examples: Sequence[Example]) -> list[list[Box]]:
        """Boxes that the head finds in each request."""
        batch = {name: value.to(self._start.device) for name, value in self._batch_of(examples).items()}
        boxes, presence, *_ = self.objective.objective.head(*self.objective.features(batch))
        kept = presence >= PRESENCE_THRESHOLD
        return [[tuple(box) for box in boxes[i][kept[i]].tolist()] for i in range(len(examples))]

    def evaluate(self) -> dict[str, float]:
        """For held-back captions: the share of boxes with a found one of IoU 0.5, the mean IoU of the best found one,
        and the number of found boxes for each true one."""
        best, count = list[float](), 0
        for examples, layouts in self._held_back():
            for example, found in zip(examples, layouts, strict=True):
                count += len(found)
                wanted = [phrase.box for phrase in example.sample.phrases[: self._most]]
                best += [max((iou(box, one) for one in found), default=0.0) for box in wanted]
        return {
            "found": float(np.mean([value >= FOUND_IOU for value in best])),
            "iou": float(np.mean(best)),
            "found_for_each": count / len(best),
        }

    def picture(self, path: Path) -> None:
        """Held-back pictures with the true boxes (grey) and the found ones (white)."""
        examples, layouts = next(self._held_back())
        tiles = []
        for example, found in zip(examples[:_SHOWN], layouts[:_SHOWN], strict=True):
            tile = example.sample.picture().resize((_SHOWN_PX, _SHOWN_PX))
            draw = ImageDraw.Draw(tile)
            for boxes, colour in (([p.box for p in example.sample.phrases], "grey"), (found, "white")):
                for box in boxes:
                    draw.rectangle([_SHOWN_PX * v for v in box], outline=colour, width=2)
            tiles.append(np.asarray(tile))
        Image.fromarray(np.concatenate(tiles, axis=1)).save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.objective.objective.head, folder / FILE)]

    def load_weights(self, folder: Path) -> None:
        load_module(self.objective.objective.head, folder / FILE)


def last_word_tokens(encoding: Encoding, caption: str, span: Span | None) -> list[int]:
    """Tokens of a phrase's last word, in English its head ("a red shirt"); none if the caption does not name it."""
    if span is None:
        return []
    words = list(re.finditer(r"\w[\w'-]*", caption[span[0] : span[1]]))
    if not words:
        return []
    first, end = span[0] + words[-1].start(), span[0] + words[-1].end()
    return [t for t, (a, b) in enumerate(encoding.offsets) if a < end and b > first]


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / max(areas - shared, 1e-12)
