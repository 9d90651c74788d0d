"""Step `unet`: the grounded UNet on cached latents, with the frozen VAE and text tower.

Conditioning is the text tower's, boxes are the scene's own. So that each condition alone suffices for a picture, boxes
are dropped in a quarter of the samples, all conditions in a tenth, and half of the captions name the background only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mgcc_ref.config import Profile
from mgcc_ref.networks.layout_map import PAINTED_CHANNELS
from mgcc_ref.networks.unet import POSITION_CHANNELS, GroundedUNet
from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.train import layout_painter
from mgcc_ref.train.layout_painter import PaintedLatents, fit_painter
from mgcc_ref.train.loop import Batch, on_device_of
from mgcc_ref.train.painter import ScenePainter
from mgcc_ref.train.steps.denoising import (
    HELD_BACK_SEED,
    USUAL,
    NoiseLevels,
    SceneLatents,
    SetSize,
    draw_noise,
    inside_psnr_db,
    save_drawn,
    weighted_error,
)
from mgcc_ref.weights import load_module, save_module

BATCH_SIZE = 32
CACHED_SCENES = 40_000
DROP_BOXES, DROP_ALL = 0.25, 0.10
BACKGROUND_ONLY_CAPTIONS = 0.5
PAINT_LOSS = 0.3
_PAINTER, _CONV_IN = "layout_map.painter.", "unet.conv_in.weight"


class UNetObjective(nn.Module):
    """Mean squared error of the v-prediction, weighted inside the boxes; t uniform over the training schedule.

    The layout map's painter keeps its own loss too (`layout_painter.py`).
    """

    def __init__(self, unet: GroundedUNet, profile: Profile) -> None:
        super().__init__()
        self.unet = unet
        self.shown = PaintedLatents(unet.latent_channels)
        self.levels = NoiseLevels(profile)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        noised, target = self.levels.noised(batch)
        layout = self.unet.layout_map(batch["boxes"], batch["box_mask"], batch["phrases"])
        prediction = self.unet.denoise_on(layout, noised, batch["t"].float(), batch["conditioning"])
        loss, v_mse = weighted_error(prediction, target, batch["inside"])
        told = batch["inside"] * batch["box_mask"].amax(dim=1).view(-1, 1, 1)
        painted = self.shown.error(layout, batch["latents"], told)
        return loss + PAINT_LOSS * painted, {"v_mse": v_mse, "painted": painted.detach()}


class UNetStep:
    def __init__(self, profile: Profile, weights: Path, run_folder: Path, size: SetSize = USUAL) -> None:
        self.painter = ScenePainter(profile, weights)
        self.objective = UNetObjective(self.painter.unet, profile)
        self._null = self.painter.unet.null_conditioning.clone()  # on the CPU, where batches are drawn
        self._batch_size = size.batch or BATCH_SIZE
        self.scenes = SceneLatents(self.painter, size.scenes or CACHED_SCENES, run_folder / "latents.npy")
        some = np.arange(min(self.scenes.count, layout_painter.SCENES))
        known = [self.scenes.scene(int(i)) for i in some]
        kept = run_folder / "painter.safetensors"
        fit_painter(self.painter, self.objective.shown, known, self.scenes.of(some), kept)

    def batch(self, rng: np.random.Generator) -> Batch:
        size = self._batch_size
        indices = rng.integers(self.scenes.count, size=size)
        scenes = [self.scenes.scene(int(i)) for i in indices]
        captions = [
            s.background.value if rng.random() < BACKGROUND_ONLY_CAPTIONS else canonical_caption(s, rng) for s in scenes
        ]
        conditions = self.painter.conditions(scenes, captions)
        nothing = torch.from_numpy(rng.random(size) < DROP_ALL)
        no_boxes = nothing | torch.from_numpy(rng.random(size) < DROP_BOXES)
        conditions["box_mask"] = conditions["box_mask"] * ~no_boxes.unsqueeze(-1)
        conditions["conditioning"] = torch.where(nothing.view(-1, 1, 1), self._null, conditions["conditioning"])
        latents = self.scenes.of(indices)
        return {**conditions, "latents": latents, **draw_noise(rng, latents)}

    def evaluate(self) -> dict[str, float]:
        rng, held_back = np.random.default_rng(HELD_BACK_SEED), self.scenes.held_back
        conditions = self.painter.conditions(held_back, [canonical_caption(s) for s in held_back])
        latents = self.scenes.held_back_latents
        batch = {**conditions, "latents": latents, **draw_noise(rng, latents)}
        _, metrics = self.objective(on_device_of(self.objective, batch), 0)
        sprites = inside_psnr_db(self.painter, held_back)
        return {**{name: float(value) for name, value in metrics.items()}, "inside_psnr_db": sprites}

    def picture(self, path: Path) -> None:
        """Eight held-back scenes above the model's pictures from their boxes and captions."""
        save_drawn(self.painter, self.scenes.held_back[:8], path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.objective.unet, folder / "unet.safetensors")]

    def load_weights(self, folder: Path) -> None:
        """Start from a trained UNet, which may have another painter than the profile's.

        In that case this run's painter stays, and the UNet's input weights for painted channels start at zero.
        """
        path, unet = folder / "unet.safetensors", self.objective.unet
        theirs, ours = load_file(path), unet.state_dict()
        if {name for name in theirs if _PAINTER in name} == {name for name in ours if _PAINTER in name}:
            load_module(unet, path)
            return
        kept = {name: value.float() for name, value in theirs.items() if _PAINTER not in name}
        painted = slice(unet.latent_channels + POSITION_CHANNELS, None)
        kept[_CONV_IN][:, painted][:, :PAINTED_CHANNELS] = 0
        unet.load_state_dict(ours | kept)
