"""Step `caption_unet`: a UNet without boxes, on captions that say what stands where. For the ablation alone.

It goes on from the grounded UNet. First the caption's map is trained without the UNet (`caption_map.py`); then both
draw, and the map stays near the layout map of the scene's own boxes.
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
from mgcc_ref.train.caption_map import fit_caption_map
from mgcc_ref.train.loop import Batch, on_device_of
from mgcc_ref.train.painter import ScenePainter
from mgcc_ref.train.steps.unet import BOX_WEIGHT, HELD_BACK_SEED, SCENE_SEED
from mgcc_ref.train.steps.vae import scene_pixels, to_image_range
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

BATCH_SIZE = 32
CACHED_SCENES = 20_000
DROP_CAPTION = 0.10
MAP_LOSS = 0.3
# An arm's conditioning is a regression's: what it does not know lies nearer to the mean. Half of the captions are
# shown so, and with noise, in parts of the conditioning's own spread.
BLUR_CHANCE, MOST_BLUR, MOST_NOISE = 0.5, 0.5, 0.3


class CaptionUNetObjective(nn.Module):
    """The grounded UNet's loss, and the caption map's distance from the layout map of the scene's boxes."""

    signal: Tensor  # square roots of the schedule's cumulative alphas, (1000,)
    sigma: Tensor

    def __init__(self, unet: CaptionUNet, alphas_cumprod: Tensor) -> None:
        super().__init__()
        self.unet = unet
        unet.layout_map.requires_grad_(False)  # it is what the caption's map imitates
        self.register_buffer("signal", alphas_cumprod.sqrt(), persistent=False)
        self.register_buffer("sigma", (1 - alphas_cumprod).sqrt(), persistent=False)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        t, noise, x0 = batch["t"], batch["noise"], batch["latents"]
        signal, sigma = self.signal[t].view(-1, 1, 1, 1), self.sigma[t].view(-1, 1, 1, 1)
        target = signal * noise - sigma * x0
        painted = self.unet.caption_map(batch["conditioning"])
        prediction = self.unet.denoise_on(painted, signal * x0 + sigma * noise, t.float(), batch["conditioning"])
        error = (prediction - target).square().mean(dim=1)  # (B, h, w)
        loss = (error * (1 + BOX_WEIGHT * batch["inside"])).mean()
        told = batch["told"]
        map_error = self.unet.caption_map.error(painted[told], batch["layout"][told])
        return loss + MAP_LOSS * map_error, {"v_mse": error.mean().detach(), "map": map_error.detach()}


class CaptionUNetStep:
    def __init__(self, profile: Profile, weights: Path, run_folder: Path) -> None:
        self.painter = ScenePainter(profile, weights)
        load_module(self.painter.unet, weights / "unet.safetensors")
        clip = profile.clip
        unet = CaptionUNet(profile.unet, clip.text_hidden, clip.text_positions, clip.text_hidden)
        unet.load_state_dict(self.painter.unet.state_dict(), strict=False)
        self.painter.unet = convert_conv2d_weight_memory_format(unet, torch.channels_last)
        self._layout_map = unet.layout_map.eval()
        scheduler = build_scheduler(profile.sampler, profile.unet.prediction)
        self.objective = CaptionUNetObjective(unet, scheduler.alphas_cumprod)
        captions = [canonical_caption(self.scene(i)) for i in range(min(CACHED_SCENES, 512))]
        told = self.painter.conditions([self.scene(0)] * len(captions), captions)["conditioning"]
        self._mean, self._spread = told.mean(dim=0), told.std(dim=0)  # (N_c, D_c)
        self._held_back = [random_scene(np.random.default_rng([HELD_BACK_SEED, i])) for i in range(64)]
        self._held_back_latents = self.painter.encode(self._held_back)
        fit_caption_map(self.painter, unet, run_folder / "caption-map.safetensors")
        self._latents = self._cached_latents(run_folder / "latents.npy")

    def scene(self, index: int) -> Scene:
        return random_scene(np.random.default_rng([SCENE_SEED, index]))

    def _told(self, scenes: list[Scene], rng: np.random.Generator | None) -> dict[str, Tensor]:
        """Conditioning, layout map and cells inside boxes; with `rng` as in training: shuffled, blurred, noisy."""
        with torch.no_grad():
            conditions = self.painter.conditions(scenes, [canonical_caption(s, rng) for s in scenes])
            layout = self._layout_map(*(conditions[name] for name in ("boxes", "box_mask", "phrases")))
        conditioning = conditions["conditioning"]
        if rng is not None:
            shape = (len(scenes), 1, 1)
            chosen = rng.random(shape) < BLUR_CHANCE
            blur = torch.from_numpy(np.where(chosen, MOST_BLUR * rng.random(shape), 0.0)).float()
            rough = torch.from_numpy(np.where(chosen, MOST_NOISE * rng.random(shape), 0.0)).float()
            noise = torch.from_numpy(rng.standard_normal(conditioning.shape, dtype=np.float32))
            conditioning = torch.lerp(conditioning, self._mean.expand_as(conditioning), blur)
            conditioning = conditioning + rough * noise * self._spread
        return {"conditioning": conditioning, "layout": layout, "inside": conditions["inside"]}

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
        nothing = torch.from_numpy(rng.random(BATCH_SIZE) < DROP_CAPTION)
        null = self.objective.unet.null_conditioning.cpu()
        told["conditioning"] = torch.where(nothing.view(-1, 1, 1), null, told["conditioning"])
        latents = torch.from_numpy(self._latents[indices]).float()
        return {**told, "told": ~nothing, "latents": latents, **self._noise(rng, latents)}

    def _noise(self, rng: np.random.Generator, latents: Tensor) -> dict[str, Tensor]:
        noise = rng.standard_normal(tuple(latents.shape), dtype=np.float32)
        return {"noise": torch.from_numpy(noise), "t": torch.from_numpy(rng.integers(1000, size=len(latents)))}

    def evaluate(self) -> dict[str, float]:
        latents = self._held_back_latents
        batch = {**self._told(self._held_back, None), "latents": latents}
        batch |= {"told": torch.ones(len(latents), dtype=torch.bool)}
        batch |= self._noise(np.random.default_rng(HELD_BACK_SEED), latents)
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
