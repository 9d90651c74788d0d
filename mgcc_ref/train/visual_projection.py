"""The visual projection, trained on pictures alone before the other steps: visual tokens should be like words.

A quadrant's target is the language model's own word embeddings of the objects and the background in it. Directions of
its own for each label add the position in the quadrant, which words cannot give.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mgcc_ref.model import MgccModel
from mgcc_ref.networks.visual_projection import GridProjection
from mgcc_ref.prompting import preprocess
from mgcc_ref.story.world.layout_words import place_of
from mgcc_ref.story.world.scene import PlacedObject, Scene, random_scene, render
from mgcc_ref.tokens import encode_user_text
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

SCENES, HELD_BACK_SCENES = 16_000, 400
STEPS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 3600, 64, 1.2e-3, 0.02
WHERE_SCALE = 0.7  # norm of a label's own directions, in norms of a word's embedding
SCENE_SEED, DIRECTIONS_SEED = 7_000_003, 7_100_003


def word_embedding(model: MgccModel, text: str) -> Tensor:
    """Mean input embedding of ` text` (with a space before it, as inside a sentence): (D,)."""
    ids = encode_user_text(model.tokenizer, " " + text).ids
    return model.embed_tokens[torch.tensor(ids)].mean(dim=0)


def quadrant(item: PlacedObject) -> int:
    x, y = item.centre
    return 2 * int(y >= 0.5) + int(x >= 0.5)


def visual_targets(model: MgccModel, scenes: list[Scene]) -> Tensor:
    """Word embeddings that the four visual tokens should be like: (scenes, 4, D)."""
    words: dict[str, Tensor] = {}

    def word(text: str) -> Tensor:
        if text not in words:
            words[text] = word_embedding(model, text)
        return words[text]

    rows = []
    for scene in scenes:
        for cell in range(4):
            items = [o for o in scene.objects if quadrant(o) == cell]
            read = [word(o.label) + 0.5 * word(place_of(o.box).value.replace("-", " ")) for o in items]
            read.append(0.5 * word(scene.background.value))
            rows.append(torch.stack(read).mean(dim=0))
    return torch.stack(rows).view(len(scenes), 4, -1)


def place_directions(model: MgccModel) -> Tensor:
    """For each label a direction along x and one along y, nearly orthogonal to all others: (2, L, D)."""
    generator = torch.Generator().manual_seed(DIRECTIONS_SEED)
    directions = torch.randn(2, len(model.labels), model.profile.llm.hidden, generator=generator)
    norm = torch.stack([word_embedding(model, label) for label in model.labels]).norm(dim=-1).mean()
    return WHERE_SCALE * norm * directions / directions.norm(dim=-1, keepdim=True)


def offsets(model: MgccModel, scenes: list[Scene]) -> Tensor:
    """Offsets x and y from each quadrant's middle, 1 at its edge, summed over a label's objects: (scenes, 4, 2, L)."""
    found = torch.zeros(len(scenes), 4, 2, len(model.labels))
    for row, scene in enumerate(scenes):
        for item in scene.objects:
            cell, label = quadrant(item), model.labels.index(item.label)
            for axis, value in enumerate(item.centre):
                middle = 0.25 + 0.5 * (cell % 2 if axis == 0 else cell // 2)
                found[row, cell, axis, label] += 4 * (value - middle)
    return found


@torch.no_grad()
def _pictures(model: MgccModel) -> tuple[list[Tensor], Tensor]:
    """Vision features of all scenes, and the target tokens: (scenes, 4, D)."""
    scenes = [random_scene(np.random.default_rng([SCENE_SEED, i])) for i in range(SCENES + HELD_BACK_SCENES)]
    rows = []
    for start in range(0, len(scenes), 100):
        pixels = [preprocess(Image.fromarray(render(s)), model) for s in scenes[start : start + 100]]
        rows.append(model.vision_encoder.vision_features(torch.cat(pixels)))
    targets = visual_targets(model, scenes)
    targets += torch.einsum("bcal,ald->bcd", offsets(model, scenes), place_directions(model))
    return [torch.cat(column) for column in zip(*rows, strict=True)], targets


def explained(given: Tensor, wanted: Tensor) -> float:
    """Share of the targets' variance that the tokens explain."""
    error = (given - wanted).square().sum()
    return float(1 - error / (wanted - wanted.flatten(0, 1).mean(0)).square().sum())


def fit_visual_projection(model: MgccModel, kept: Path) -> None:
    """Train the projection, or load it from `kept`. Regression with AdamW, cosine from LEARNING_RATE, one seed."""
    projection = model.vision_encoder.projection
    if kept.exists():
        load_module(projection, kept)
        return
    if not isinstance(projection, GridProjection):
        raise ValueError("only visual pooling GRID is trained here; with POOLED take published weights")
    features, targets = _pictures(model)
    held_back = [f[SCENES:] for f in features], targets[SCENES:]
    _train(projection, [f[:SCENES] for f in features], targets[:SCENES])
    with torch.no_grad():
        share = explained(projection(*held_back[0]), held_back[1])
    log.info("visual projection explains %.3f of its held-back targets", share)
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_module(projection, kept)
    load_module(projection, kept)  # with the file's rounding, so that all runs use the same weights


def _train(projection: nn.Module, features: list[Tensor], targets: Tensor) -> None:
    scale = 1 / targets.var()
    generator = torch.Generator().manual_seed(SCENE_SEED)
    projection.requires_grad_(True)
    optimizer = torch.optim.AdamW(projection.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 100)
            group["lr"] = LEARNING_RATE * warm * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        chosen = torch.randint(len(targets), (BATCH_SIZE,), generator=generator)
        loss = scale * (projection(*(f[chosen] for f in features)) - targets[chosen]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(projection.parameters(), 1.0)
        optimizer.step()
        if step % 500 == 499:
            log.info("visual projection: step %d of %d, loss %.4f", step + 1, STEPS, loss.item())
    projection.requires_grad_(False)
