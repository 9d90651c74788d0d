"""Step `align` at the paper's scale, by GILL's recipe (arXiv 2305.17216).

It has three losses: the cross-entropy of captions after their pictures, which trains the visual projection; that of
captions and the [IMG] tokens after them; and the distance of the refiner's conditioning from the text tower's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mgcc_ref.model import Alignment
from mgcc_ref.prompting import preprocess
from mgcc_ref.tokens import encode_captions
from mgcc_ref.train.data.sample import Sample, Samples
from mgcc_ref.train.loop import Batch
from mgcc_ref.train.published.draws import Draws
from mgcc_ref.train.published.parts import ALIGNED, Setup, Start, begin, with_pictures
from mgcc_ref.train.published.recipes import DRAWN_WORDS_WEIGHT, JOINED_CHANCE, WORDS_WEIGHT, Recipe
from mgcc_ref.train.published.sequences import PAD, SLOT, UNTOLD, Writer, padded
from mgcc_ref.train.steps.align import gill_loss
from mgcc_ref.weights import load_module, save_module

FILE = "alignment.safetensors"
_JOINING = 1  # in the seeds for the choice of batches read in pairs
_SHOWN = 6


class GillObjective(nn.Module):
    """The three losses. The frozen language model and CLIP are not in its state."""

    def __init__(self, start: Start) -> None:
        super().__init__()
        model = start.model
        self.alignment = Alignment(model).requires_grad_(True).to(start.device)
        tokens = self.alignment.image_tokens
        self.tied = model.profile.llm.tied  # then the [IMG] tokens' rows of the head are their embeddings, as in GILL
        self._norm = start.llm.table.float().norm(dim=-1).mean()
        with torch.no_grad():
            self._rescale()
            tokens.head.weight.copy_(tokens.embeddings)
            tokens.head.bias.zero_()
        tokens.head.requires_grad_(not self.tied)
        self._frozen = [start]  # in a list, which nn.Module does not search for submodules

    @torch.no_grad()
    def _rescale(self) -> None:
        """Scale the [IMG] embeddings to the mean norm of the words', as GILL does after each step."""
        rows = self.alignment.image_tokens.embeddings
        rows.mul_(self._norm / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12))

    @torch.no_grad()
    def finish(self) -> None:
        """Bring the [IMG] tokens into the form in which they are saved."""
        self._rescale()
        if self.tied:
            self.alignment.image_tokens.head.weight.copy_(self.alignment.image_tokens.embeddings)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if self.training:  # here, since the loop has no call after a step
            self._rescale()
        words = self.words(batch)
        drawn_words, given, wanted = self.drawn(batch)
        drawn = gill_loss(given, wanted)
        loss = WORDS_WEIGHT * words + DRAWN_WORDS_WEIGHT * drawn_words + drawn
        explained = 1 - (given - wanted).detach().square().mean() / wanted.var(dim=0, unbiased=False).mean().clamp_min(
            1e-6
        )
        told = {"words": words, "drawn_words": drawn_words, "drawn": drawn, "explained": explained}
        return loss, {name: value.detach() for name, value in told.items()}

    def words(self, batch: Batch) -> Tensor:
        """Cross-entropy of the captions after their pictures."""
        start, ids = self._frozen[0], batch["told_ids"]
        with torch.no_grad():
            seen = start.model.vision_encoder.vision_features(batch["pixels"])
        visual = self.alignment.visual_projection(*seen).float()
        visual = visual.view(len(batch["pixels"]), -1, start.model.profile.llm.hidden)
        embeds = with_pictures(start.llm.embed(ids.clamp_min(0)), ids == SLOT, visual)
        _, last = start.llm.read(embeds, ids != PAD)
        return self._cross_entropy(last, batch["told_labels"])

    def drawn(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy of captions and [IMG] tokens, and the conditioning (B, N_c, D_c), predicted and wanted."""
        start, ids, tokens = self._frozen[0], batch["drawn_ids"], self.alignment.image_tokens.embeddings
        count = len(tokens)
        embeds = torch.cat([start.llm.embed(ids.clamp_min(0)), tokens.expand(len(ids), -1, -1)], dim=1)
        mask = F.pad(ids != PAD, (0, count), value=True)
        features, last = start.llm.read(embeds, mask)
        words = self._cross_entropy(last, batch["drawn_labels"])
        context = features[:, :-count], mask[:, :-count]
        given = self.alignment.refiner(features[:, -count:], *context, tokens).float()
        if "targets" in batch:
            return words, given, batch["targets"]
        with torch.no_grad():
            wanted = start.model.text_encoder(batch["captions"])[0].float()
        return words, given, wanted

    def _cross_entropy(self, last: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the normed last layer (B, S, D) with the next position's label in `labels` (B, S)."""
        asked = labels[:, 1:] != UNTOLD
        rows = last[:, :-1][asked]
        tokens = self.alignment.image_tokens
        own = F.linear(rows, tokens.embeddings) if self.tied else tokens.head(rows)
        logits = torch.cat([self._frozen[0].llm.word_logits(rows), own.float()], dim=-1)
        return F.cross_entropy(logits, labels[:, 1:][asked])


@dataclass(frozen=True)
class Example:
    caption: str
    pixels: Tensor  # (1, 3, H_v, W_v)
    target: np.ndarray | None  # (N_c, D_c)


class PublishedAlignStep:
    """Reads captioned pictures; saves `alignment.safetensors`."""

    def __init__(self, setup: Setup, samples: Samples, recipe: Recipe) -> None:
        self._draws = Draws(samples, setup.seed, recipe.held_back)
        self._start = begin(setup, ALIGNED)
        self._recipe, self._seed = recipe, setup.seed
        self._writer = Writer(self._start.model)
        self.objective = GillObjective(self._start)

    def _example(self, sample: Sample) -> Example:
        clip = self._start.model.profile.clip
        target = sample.conditioning((clip.text_positions, clip.text_hidden))
        return Example(sample.caption, preprocess(sample.picture(), self._start.model), target)

    def _batch_of(self, examples: Sequence[Example], joined: tuple[bool, bool]) -> Batch:
        """`joined`: whether captions are read in pairs after their pictures, and before the [IMG] tokens."""
        captions = [example.caption for example in examples]
        told = [self._writer.told(captions[i : i + 1 + joined[0]]) for i in range(0, len(captions), 1 + joined[0])]
        # the first of a pair is read alone: before the second, a causal model gives it the same features
        drawn = [self._writer.drawn(captions[i - (joined[1] and i % 2) : i + 1]) for i in range(len(captions))]
        batch = {
            "pixels": torch.cat([example.pixels for example in examples]),
            "told_ids": padded([one.ids for one in told], PAD),
            "told_labels": padded([one.labels for one in told], UNTOLD),
            "drawn_ids": padded([one.ids for one in drawn], PAD),
            "drawn_labels": padded([one.labels for one in drawn], UNTOLD),
            "captions": encode_captions(self._start.model.text_tokenizer, captions),
        }
        targets = [example.target for example in examples if example.target is not None]
        if len(targets) == len(examples):
            batch["targets"] = torch.from_numpy(np.stack(targets))
        return batch

    def part_of_batch(self, step: int, part: int, parts: int) -> Batch:
        first, second = np.random.default_rng([self._seed, _JOINING, step]).random(2) < JOINED_CHANCE
        positions = self._draws.part(step, self._recipe.batch, part, parts)
        return self._batch_of([self._draws.at(p, self._example) for p in positions], (bool(first), bool(second)))

    def batch(self, rng: np.random.Generator) -> Batch:
        return self.part_of_batch(int(rng.integers(2**31)), 0, 1)

    def _held_back(self) -> Iterator[Batch]:
        for indices in self._recipe.chunks(self._draws.held_back):
            batch = self._batch_of([self._draws.held(i, self._example) for i in indices], (False, False))
            yield {name: value.to(self._start.device) for name, value in batch.items()}

    def evaluate(self) -> dict[str, float]:
        """The losses of held-back samples, and the share of the conditioning's variance explained."""
        told = [(len(batch["pixels"]), self.objective(batch, 0)[1]) for batch in self._held_back()]
        count = sum(size for size, _ in told)
        return {name: sum(size * float(one[name]) for size, one in told) / count for name in told[0][1]}

    def picture(self, path: Path) -> None:
        """Wanted (left) and predicted (right) conditioning of held-back captions, as grey maps."""
        _, given, wanted = self.objective.drawn(next(self._held_back()))
        both = torch.cat([wanted, given], dim=-1)[:_SHOWN].flatten(0, 1).cpu()
        grey = (both.clamp(-3, 3).add(3).div(6) * 255).byte().numpy()
        Image.fromarray(grey).save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        self.objective.finish()
        return [save_module(self.objective.alignment, folder / FILE)]

    def load_weights(self, folder: Path) -> None:
        load_module(self.objective.alignment, folder / FILE)
