"""Step `caption_unet`: a UNet without boxes, on captions that say what stands where. For the ablation alone.

It goes on from the grounded UNet. First the caption's map learns to read (`caption_map.py`); then both draw, and the
map goes on reading.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from mgcc_ref.caption_unet import CaptionUNet
from mgcc_ref.config import Profile
from mgcc_ref.schedule import build_scheduler
from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.story.scene import Scene, random_scene
from mgcc_ref.story.sprites import LABELS
from mgcc_ref.train.caption_map import Blur, CaptionSet, caption_set, fit_caption_map, reading_loss
from mgcc_ref.train.loop import Batch, on_device_of
from mgcc_ref.train.painter import ScenePainter
from mgcc_ref.train.steps.unet import BOX_WEIGHT, HELD_BACK_SEED, SCENE_SEED
from mgcc_ref.train.steps.vae import scene_pixels, to_image_range
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

BATCH_SIZE = 32
CACHED_SCENES = 20_000
DROP_CAPTION = 0.10
READING_LOSS = 0.1


class CaptionUNetObjective(nn.Module):
    """The grounded UNet's loss, and the caption map's reading."""

    signal: Tensor  # square roots of the schedule's cumulative alphas, (1000,)
    sigma: Tensor

    def __init__(self, unet: CaptionUNet, alphas_cumprod: Tensor) -> None:
        super().__init__()
        self.unet = unet
        unet.layout_map.requires_grad_(False)  # there are no boxes
        self.register_buffer("signal", alphas_cumprod.sqrt(), persistent=False)
        self.register_buffer("sigma", (1 - alphas_cumprod).sqrt(), persistent=False)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        t, noise, x0 = batch["t"], batch["noise"], batch["latents"]
        signal, sigma = self.signal[t].view(-1, 1, 1, 1), self.sigma[t].view(-1, 1, 1, 1)
        target = signal * noise - sigma * x0
        reading = self.unet.caption_map.read(batch["conditioning"])
        painted = self.unet.caption_map.paint(reading)
        prediction = self.unet.denoise_on(painted, signal * x0 + sigma * noise, t.float(), batch["conditioning"])
        error = (prediction - target).square().mean(dim=1)  # (B, h, w)
        loss = (error * (1 + BOX_WEIGHT * batch["inside"])).mean()
        told = reading_loss(reading, CaptionSet(batch["conditioning"], batch["things"], batch["kinds"]))
        return loss + READING_LOSS * told, {"v_mse": error.mean().detach(), "reading": told.detach()}


class CaptionUNetStep:
    def __init__(self, profile: Profile, weights: Path, run_folder: Path) -> None:
        self.painter = ScenePainter(profile, weights)
        load_module(self.painter.unet, weights / "unet.safetensors")
        clip = profile.clip
        unet = CaptionUNet(profile.unet, clip.text_hidden, clip.text_positions, clip.text_hidden, len(LABELS))
        unet.load_state_dict(self.painter.unet.state_dict(), strict=False)
        self.painter.unet = convert_conv2d_weight_memory_format(unet, torch.channels_last)
        scheduler = build_scheduler(profile.sampler, profile.unet.prediction)
        self.objective = CaptionUNetObjective(unet, scheduler.alphas_cumprod)
        some = [self.scene(i) for i in range(min(CACHED_SCENES, 512))]
        self._blur = Blur.of(caption_set(self.painter, some, np.random.default_rng(SCENE_SEED)).conditioning)
        self._held_back = [random_scene(np.random.default_rng([HELD_BACK_SEED, i])) for i in range(64)]
        self._held_back_latents = self.painter.encode(self._held_back)
        fit_caption_map(self.painter, unet, run_folder / "caption-map.safetensors")
        self._latents = self._cached_latents(run_folder / "latents.npy")

    def scene(self, index: int) -> Scene:
        return random_scene(np.random.default_rng([SCENE_SEED, index]))

    def _told(self, scenes: list[Scene], rng: np.random.Generator) -> dict[str, Tensor]:
        """Conditioning of the scenes' captions, what their tokens are, and cells inside boxes."""
        known = caption_set(self.painter, scenes, rng)
        where = self.painter.boxes(scenes)
        return {
            "conditioning": known.conditioning, "things": known.things, "kinds": known.kinds, "inside": where["inside"],
        }  # fmt: skip

    def _cached_latents(self, path: Path) -> np.ndarray:
        """Latents of the training scenes, float16, encoded once a run: (CACHED_SCENES, C, h, w)."""
        if not path.exists():
            log.info("encoding %d scenes", CACHED_SCENES)
            chunks = [
                self.painter.encode([self.scene(i) for i in range(start, start + 100)]).half().numpy()
                for start in range(0, CACHED_SCENES, 100)
            ]
            np.save(path.with_suffix(".tmp.npy"), np.concatenate(chunks))
            path.with_suffix(".tmp.npy").replace(path)
        return np.load(path)

    def batch(self, rng: np.random.Generator) -> Batch:
        indices = rng.integers(CACHED_SCENES, size=BATCH_SIZE)
        told = self._told([self.scene(int(i)) for i in indices], rng)
        nothing = torch.from_numpy(rng.random(BATCH_SIZE) < DROP_CAPTION).unsqueeze(-1)
        null = self.objective.unet.null_conditioning.cpu()
        told["conditioning"] = torch.where(nothing.unsqueeze(-1), null, self._blur(told["conditioning"], rng))
        told["things"] = told["things"].masked_fill(nothing, len(LABELS))
        told["kinds"] = told["kinds"].masked_fill(nothing, -1)
        latents = torch.from_numpy(self._latents[indices]).float()
        return {**told, "latents": latents, **self._noise(rng, latents)}

    def _noise(self, rng: np.random.Generator, latents: Tensor) -> dict[str, Tensor]:
        noise = rng.standard_normal(tuple(latents.shape), dtype=np.float32)
        return {"noise": torch.from_numpy(noise), "t": torch.from_numpy(rng.integers(1000, size=len(latents)))}

    def evaluate(self) -> dict[str, float]:
        latents, rng = self._held_back_latents, np.random.default_rng(HELD_BACK_SEED)
        batch = {**self._told(self._held_back, rng), "latents": latents, **self._noise(rng, latents)}
        _, metrics = self.objective(on_device_of(self.objective, batch), 0)
        return {name: float(value) for name, value in metrics.items()}

    def picture(self, path: Path) -> None:
        """Eight held-back scenes above what the model draws from their captions alone."""
        scenes = self._held_back[:8]
        drawn = self.painter.draw(scenes, [canonical_caption(s) for s in scenes], steps=20, guidance=2.0, seed=0)
        true = to_image_range(scene_pixels(scenes, self.painter.profile.image_px))
        rows = [np.concatenate(list(images), axis=1) for images in (true, drawn)]
        Image.fromarray(np.concatenate(rows, axis=0)).save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.objective.unet, folder / "caption_unet.safetensors")]

    def load_weights(self, folder: Path) -> None:
        load_module(self.objective.unet, folder / "caption_unet.safetensors")
