"""Step `caption_unet`: a UNet without boxes, on captions with objects and places. For the ablation alone.

It starts from the grounded UNet. First the caption's map learns to read (`caption_map.py`); then both are trained to
draw, and the reading loss stays.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from mgcc_ref.config import Profile
from mgcc_ref.networks.caption_unet import CaptionUNet
from mgcc_ref.story.world.scene import Scene
from mgcc_ref.story.world.sprites import LABELS
from mgcc_ref.train.caption_map import NOT_READ, Blur, caption_set, fit_caption_map, reading_loss
from mgcc_ref.train.loop import Batch, on_device_of
from mgcc_ref.train.painter import ScenePainter
from mgcc_ref.train.steps.denoising import (
    HELD_BACK_SEED,
    SCENE_SEED,
    NoiseLevels,
    SceneLatents,
    draw_noise,
    save_drawn,
    weighted_error,
)
from mgcc_ref.weights import load_module, save_module

BATCH_SIZE = 32
CACHED_SCENES = 20_000
DROP_CAPTION = 0.10
READING_LOSS = 0.1


class CaptionUNetObjective(nn.Module):
    """The grounded UNet's loss, and the caption map's reading loss."""

    def __init__(self, unet: CaptionUNet, profile: Profile) -> None:
        super().__init__()
        self.unet = unet
        unet.layout_map.requires_grad_(False)  # there are no boxes
        self.levels = NoiseLevels(profile)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        noised, target = self.levels.noised(batch)
        reading = self.unet.caption_map.read(batch["conditioning"])
        painted = self.unet.caption_map.paint(reading)
        prediction = self.unet.denoise_on(painted, noised, batch["t"].float(), batch["conditioning"])
        loss, v_mse = weighted_error(prediction, target, batch["inside"])
        told = reading_loss(reading, batch["things"], batch["kinds"])
        return loss + READING_LOSS * told, {"v_mse": v_mse, "reading": told.detach()}


class CaptionUNetStep:
    def __init__(self, profile: Profile, weights: Path, run_folder: Path) -> None:
        self.painter = ScenePainter(profile, weights)
        load_module(self.painter.unet, weights / "unet.safetensors")
        clip = profile.clip
        unet = CaptionUNet(profile.unet, clip.text_hidden, clip.text_positions, clip.text_hidden, len(LABELS))
        unet.load_state_dict(self.painter.unet.state_dict(), strict=False)
        self.painter.unet = convert_conv2d_weight_memory_format(unet, torch.channels_last)
        self.objective = CaptionUNetObjective(unet, profile)
        self.scenes = SceneLatents(self.painter, CACHED_SCENES, run_folder / "latents.npy")
        some = [self.scenes.scene(i) for i in range(min(CACHED_SCENES, 512))]
        self._blur = Blur.of(caption_set(self.painter, some, np.random.default_rng(SCENE_SEED)).conditioning)
        fit_caption_map(self.painter, unet, run_folder / "caption-map.safetensors")

    def _told(self, scenes: list[Scene], rng: np.random.Generator) -> dict[str, Tensor]:
        """Conditioning of the scenes' captions, the targets of their tokens, and cells inside boxes."""
        known = caption_set(self.painter, scenes, rng)
        inside = self.painter.boxes(scenes)["inside"]
        return {"conditioning": known.conditioning, "things": known.things, "kinds": known.kinds, "inside": inside}

    def batch(self, rng: np.random.Generator) -> Batch:
        indices = rng.integers(CACHED_SCENES, size=BATCH_SIZE)
        told = self._told([self.scenes.scene(int(i)) for i in indices], rng)
        nothing = torch.from_numpy(rng.random(BATCH_SIZE) < DROP_CAPTION).unsqueeze(-1)
        null = self.objective.unet.null_conditioning.cpu()
        told["conditioning"] = torch.where(nothing.unsqueeze(-1), null, self._blur(told["conditioning"], rng))
        told["things"] = told["things"].masked_fill(nothing, len(LABELS))
        told["kinds"] = told["kinds"].masked_fill(nothing, NOT_READ)
        latents = self.scenes.of(indices)
        return {**told, "latents": latents, **draw_noise(rng, latents)}

    def evaluate(self) -> dict[str, float]:
        latents, rng = self.scenes.held_back_latents, np.random.default_rng(HELD_BACK_SEED)
        batch = {**self._told(self.scenes.held_back, rng), "latents": latents, **draw_noise(rng, latents)}
        _, metrics = self.objective(on_device_of(self.objective, batch), 0)
        return {name: float(value) for name, value in metrics.items()}

    def picture(self, path: Path) -> None:
        """Eight held-back scenes above the model's pictures from their captions alone."""
        save_drawn(self.painter, self.scenes.held_back[:8], path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.objective.unet, folder / "caption_unet.safetensors")]

    def load_weights(self, folder: Path) -> None:
        load_module(self.objective.unet, folder / "caption_unet.safetensors")
