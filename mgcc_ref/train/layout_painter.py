"""The layout map's painter, trained alone before the UNet: a step of it costs a thirtieth of the UNet's.

What it says of a box has to hold the true latents there, by one linear map that only training needs. The rest of the
box's rectangle shows the background, which the painter is not told, so the error has a floor.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mgcc_ref.layout_map import PAINTED_CHANNELS, LayoutMap
from mgcc_ref.story.scene import Scene
from mgcc_ref.train.painter import ScenePainter
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

SCENES = 12_000
STEPS, BATCH_SIZE, LEARNING_RATE = 6000, 32, 4e-3


class PaintedLatents(nn.Module):
    """What the painter alone says of the latents: (B, LAYOUT_CHANNELS, h, w) -> (B, C, h, w)."""

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.shown = nn.Conv2d(PAINTED_CHANNELS, latent_channels, 1)

    def forward(self, layout: Tensor) -> Tensor:
        return self.shown(layout[:, :PAINTED_CHANNELS])

    def error(self, layout: Tensor, latents: Tensor, told: Tensor) -> Tensor:
        """Mean squared error over the cells of `told` (B, h, w), those inside boxes."""
        error = (self(layout) - latents).square().mean(dim=1)
        return (error * told).sum() / told.sum().clamp_min(1.0)


def fit_painter(
    painter: ScenePainter, shown: PaintedLatents, scenes: Sequence[Scene], latents: Tensor, kept: Path
) -> None:
    """Train the painter of `painter.unet` and `shown`, or load those in `kept`. AdamW, cosine, one seed.

    `latents` (B, C, h, w) are the scenes' own.
    """
    both = nn.ModuleDict({"painter": painter.unet.layout_map.painter, "shown": shown})
    if not kept.exists():
        _train(both, painter, shown, scenes, latents)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_module(both, kept)
    load_module(both, kept)


def _train(
    both: nn.Module, painter: ScenePainter, shown: PaintedLatents, scenes: Sequence[Scene], latents: Tensor
) -> None:
    layout_map: LayoutMap = painter.unet.layout_map
    where = painter.boxes(scenes)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(both.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    layout_map.train()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        chosen = torch.randint(len(scenes), (BATCH_SIZE,), generator=generator)
        layout = layout_map(*(where[name][chosen] for name in ("boxes", "box_mask", "phrases")))
        loss = shown.error(layout, latents[chosen], where["inside"][chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        if step % 500 == 499:
            log.info("layout map's painter: step %d of %d, error %.4f", step + 1, STEPS, loss.item())
    layout_map.eval()
