"""The layout map's painter, trained alone before the UNet: one of its steps costs a thirtieth of the UNet's.

Textures are first fitted to pictures, pixel by pixel, and then frozen. Their encoder is trained like the other painter.

A linear map, used in training alone, predicts the true latents inside the boxes from the painter's channels. Parts of
a box show the background, which the painter does not know, so the error has a floor.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor, nn

from mgcc_ref.networks.layout_map import PAINTED_CHANNELS, LayoutMap
from mgcc_ref.networks.texture_painter import TexturePainter
from mgcc_ref.story.world.scene import Scene
from mgcc_ref.train.loop import on_device_of
from mgcc_ref.train.painter import ScenePainter
from mgcc_ref.train.pixels import scene_pixels
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

SCENES = 12_000
STEPS, BATCH_SIZE, LEARNING_RATE = 6000, 32, 4e-3
#: For the textures alone, fitted pixel by pixel; a batch of 16 takes 0.7 s on one core.
TEXTURE_STEPS, TEXTURE_BATCH_SIZE, TEXTURE_LEARNING_RATE = 600, 16, 2e-2
#: For the encoder of the textures.
ENCODER_STEPS = 1500


class PaintedLatents(nn.Module):
    """Latents predicted from the painter's channels alone: (B, LAYOUT_CHANNELS, h, w) -> (B, C, h, w)."""

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.shown = nn.Conv2d(PAINTED_CHANNELS, latent_channels, 1)

    def forward(self, layout: Tensor) -> Tensor:
        return self.shown(layout[:, :PAINTED_CHANNELS])

    def error(self, layout: Tensor, latents: Tensor, told: Tensor) -> Tensor:
        """Mean squared error over the cells of `told` (B, h, w), which is 1 inside boxes."""
        error = (self(layout) - latents).square().mean(dim=1)
        return (error * told).sum() / told.sum().clamp_min(1.0)


def fit_painter(
    painter: ScenePainter, shown: PaintedLatents, scenes: Sequence[Scene], latents: Tensor, kept: Path
) -> None:
    """Train the painter of `painter.unet` and `shown`, or load both from `kept`. AdamW, cosine, one seed.

    `latents` (B, C, h, w) are the scenes' true ones.
    """
    objects = painter.unet.layout_map.painter
    both = nn.ModuleDict({"painter": objects, "shown": shown})
    if not kept.exists():
        fitted = nn.ModuleList((painter.unet.layout_map, shown)).to(PartialState().device)
        if isinstance(objects, TexturePainter):
            _train_textures(objects, painter, scenes)
            objects.texture.requires_grad_(False)
        _train(both, painter, shown, scenes, latents)
        fitted.cpu()
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_module(both, kept)
    load_module(both, kept)
    if isinstance(objects, TexturePainter):
        objects.texture.requires_grad_(False)  # finished: they were fitted to pixels


def _rate(peak: float, step: int, steps: int) -> float:
    """Learning rate of a step: a short warm-up, then a cosine to zero."""
    return peak * min(1.0, (step + 1) / min(100, steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _train_textures(objects: TexturePainter, painter: ScenePainter, scenes: Sequence[Scene]) -> None:
    """Fit the textures: the canvas over the bare background should equal the scene's picture."""
    where, layout_map = painter.boxes(scenes), painter.unet.layout_map
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(objects.texture.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(TEXTURE_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _rate(TEXTURE_LEARNING_RATE, step, TEXTURE_STEPS)
        chosen = torch.randint(len(scenes), (TEXTURE_BATCH_SIZE,), generator=generator)
        batch = [scenes[int(i)] for i in chosen]
        told = on_device_of(objects, {name: where[name][chosen] for name in ("boxes", "box_mask", "phrases")})
        canvas = objects.canvas(told["boxes"], told["box_mask"], layout_map.whitened(told["phrases"]))
        colours, alpha = canvas[:, :3], canvas[:, 3:]
        bare = scene_pixels([Scene(s.background, ()) for s in batch], painter.profile.image_px).to(canvas.device)
        shown = 2 * colours - alpha + (1 - alpha) * bare  # pixels run from -1 to 1, the canvas from 0 to 1
        loss = (shown - scene_pixels(batch, painter.profile.image_px).to(canvas.device)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            log.info("textures: step %d of %d, squared error %.5f", step + 1, TEXTURE_STEPS, loss.item())


def _train(
    both: nn.Module, painter: ScenePainter, shown: PaintedLatents, scenes: Sequence[Scene], latents: Tensor
) -> None:
    layout_map: LayoutMap = painter.unet.layout_map
    where = painter.boxes(scenes)
    generator = torch.Generator().manual_seed(0)
    learning = [p for p in both.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=LEARNING_RATE, betas=(0.9, 0.99))
    steps = min(STEPS, ENCODER_STEPS) if isinstance(layout_map.painter, TexturePainter) else STEPS
    layout_map.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(LEARNING_RATE, step, steps)
        chosen = torch.randint(len(scenes), (BATCH_SIZE,), generator=generator)
        batch = on_device_of(shown, {name: value[chosen] for name, value in where.items()} | {"x": latents[chosen]})
        layout = layout_map(batch["boxes"], batch["box_mask"], batch["phrases"])
        loss = shown.error(layout, batch["x"], batch["inside"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        if step % 500 == 499:
            log.info("layout map's painter: step %d of %d, error %.4f", step + 1, steps, loss.item())
    layout_map.eval()
