"""The caption's map, trained before the UNet that draws from it: a step costs a fifth of the UNet's.

First its encoder learns to say at every token which word it is, and at the last of a thing's which thing; a loss on
the map alone does not find that out (in 750 steps nothing). Then the whole map learns what the layout map of the
scene's own boxes holds. A caption names one of nine places and two sizes, so this is a mean over where exactly things
may stand: most of the error stays, and what the noisy latents show of it, the UNet has to add.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgcc_ref.caption_unet import READ_WIDTH, CaptionMap, CaptionUNet
from mgcc_ref.story.captions import COMMA, canonical_caption
from mgcc_ref.story.scene import random_scene
from mgcc_ref.story.sprites import LABELS
from mgcc_ref.tokens import encode_captions
from mgcc_ref.train.painter import ScenePainter
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

SCENES = 12_000
READER_STEPS, READER_BATCH_SIZE = 1_200, 64
MAP_STEPS, MAP_BATCH_SIZE = 1_500, 32
LEARNING_RATE, READING_LOSS = 1e-3, 0.3

_SEED, _CHUNK, _NO_THING = 12_000_017, 200, -1


@dataclass(frozen=True)
class CaptionSet:
    """Captions in shuffled order, and what is known of them; B of them."""

    ids: Tensor  # (B, N_c) int64
    things: Tensor  # (B, N_c) int64: index of the thing's label at its last token, -1 elsewhere
    conditioning: Tensor  # (B, N_c, D_c)
    layout: Tensor  # (B, LAYOUT_CHANNELS, h, w)


def thing_ends(caption: str) -> dict[int, int]:
    """Token position (after the begin token) of each thing's last word -> index of its label.

    Of a canonical caption: clauses of size, label and place after the background.
    """
    words = caption.split()
    cuts = [i for i, word in enumerate(words) if word == COMMA] + [len(words)]
    return {end: LABELS.index(" ".join(words[start + 2 : end - 1])) for start, end in itertools.pairwise(cuts)}


@torch.no_grad()
def caption_set(painter: ScenePainter, unet: CaptionUNet, count: int, seed: int) -> CaptionSet:
    """`count` random scenes' captions, with their conditioning and the layout map of their boxes."""
    rng = np.random.default_rng(seed)
    chunks: list[tuple[Tensor, ...]] = []
    layout_map = unet.layout_map.eval()
    for start in range(0, count, _CHUNK):
        scenes = [random_scene(rng) for _ in range(min(_CHUNK, count - start))]
        captions = [canonical_caption(scene, rng) for scene in scenes]
        ids = encode_captions(painter.tokenizer, captions)
        things = torch.full_like(ids, _NO_THING)
        for row, caption in enumerate(captions):
            for position, label in thing_ends(caption).items():
                if position < things.shape[1]:  # a long caption is cut
                    things[row, position] = label
        told = painter.conditions(scenes, captions)
        layout = layout_map(*(told[name] for name in ("boxes", "box_mask", "phrases")))
        chunks.append((ids, things, told["conditioning"], layout))
    return CaptionSet(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))


class CaptionReading(nn.Module):
    """What a token's reading says: which word it is, and which thing ends there. Only training needs it."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.word, self.thing = nn.Linear(READ_WIDTH, vocabulary), nn.Linear(READ_WIDTH, len(LABELS))

    def loss(self, read: Tensor, ids: Tensor, things: Tensor) -> Tensor:
        """Cross-entropies of words and of things: (B, N_c, READ_WIDTH) against ids and labels (B, N_c)."""
        thing = F.cross_entropy(self.thing(read).flatten(0, 1), things.flatten(), ignore_index=_NO_THING)
        return F.cross_entropy(self.word(read).flatten(0, 1), ids.flatten()) + thing


def fit_caption_map(painter: ScenePainter, unet: CaptionUNet, kept: Path) -> None:
    """Train the caption's map of `unet`, or load what is `kept`. AdamW, one seed."""
    if not kept.exists():
        _train(unet.caption_map, caption_set(painter, unet, SCENES, _SEED), painter.profile.clip.text_vocabulary)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_module(unet.caption_map, kept)
    load_module(unet.caption_map, kept)


def _train(caption_map: CaptionMap, known: CaptionSet, vocabulary: int) -> None:
    caption_map.fit(known.layout)
    reading = CaptionReading(vocabulary)
    generator = torch.Generator().manual_seed(_SEED)

    def pick(size: int) -> Tensor:
        return torch.randint(len(known.ids), (size,), generator=generator)

    def read_only() -> Tensor:
        chosen = pick(READER_BATCH_SIZE)
        return reading.loss(caption_map.read(known.conditioning[chosen]), known.ids[chosen], known.things[chosen])

    def whole() -> Tensor:
        chosen = pick(MAP_BATCH_SIZE)
        told = known.conditioning[chosen]
        error = caption_map.error(caption_map(told), known.layout[chosen])
        return error + READING_LOSS * reading.loss(caption_map.read(told), known.ids[chosen], known.things[chosen])

    parameters = [*caption_map.parameters(), *reading.parameters()]
    _descend("reader", read_only, parameters, READER_STEPS)
    _descend("map", whole, parameters, MAP_STEPS)


def _descend(name: str, loss_of: Callable[[], Tensor], parameters: list[nn.Parameter], steps: int) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99))
    for step in range(steps):
        late = max(0.0, 2 * step / steps - 1)  # the second half's fall
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * late))
        loss = loss_of()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 99:
            log.info("caption's %s: step %d of %d, loss %.3f", name, step + 1, steps, loss.item())
