"""Step `unet`: the grounded UNet on cached latents, with the frozen VAE and text tower.

Captions are the text tower's, boxes are the scene's own. So that either condition can carry the picture, boxes
are dropped in a quarter of the samples, everything in a tenth, and half of the captions name the background only.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mgcc_ref.config import Profile
from mgcc_ref.schedule import build_scheduler
from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.story.scene import Scene, random_scene
from mgcc_ref.train import layout_painter
from mgcc_ref.train.layout_painter import PaintedLatents, fit_painter
from mgcc_ref.train.loop import Batch, on_device_of
from mgcc_ref.train.painter import ScenePainter
from mgcc_ref.train.steps.vae import scene_pixels, to_image_range
from mgcc_ref.unet import GroundedUNet
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

BATCH_SIZE = 32
CACHED_SCENES = 40_000
DROP_BOXES, DROP_ALL = 0.25, 0.10
BACKGROUND_ONLY_CAPTIONS = 0.5
BOX_WEIGHT = 2.0  # extra loss weight inside the boxes: objects are small, and they are the point
PAINT_LOSS = 0.3
SCENE_SEED = 3_100_003
HELD_BACK_SEED = 4_000_003


class UNetObjective(nn.Module):
    """Mean squared error of the v-prediction, weighted inside the boxes; t uniform over the training schedule.

    The layout map's painter goes on answering for itself, too (`layout_painter.py`).
    """

    signal: Tensor  # square roots of the schedule's cumulative alphas, (1000,)
    sigma: Tensor

    def __init__(self, unet: GroundedUNet, alphas_cumprod: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.shown = PaintedLatents(unet.latent_channels)
        self.register_buffer("signal", alphas_cumprod.sqrt(), persistent=False)
        self.register_buffer("sigma", (1 - alphas_cumprod).sqrt(), persistent=False)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        t, noise, x0 = batch["t"], batch["noise"], batch["latents"]
        signal, sigma = self.signal[t].view(-1, 1, 1, 1), self.sigma[t].view(-1, 1, 1, 1)
        target = signal * noise - sigma * x0
        layout = self.unet.layout_map(batch["boxes"], batch["box_mask"], batch["phrases"])
        prediction = self.unet.denoise_on(layout, signal * x0 + sigma * noise, t.float(), batch["conditioning"])
        error = (prediction - target).square().mean(dim=1)  # (B, h, w)
        loss = (error * (1 + BOX_WEIGHT * batch["inside"])).mean()
        told = batch["inside"] * batch["box_mask"].amax(dim=1).view(-1, 1, 1)
        painted = self.shown.error(layout, x0, told)
        metrics = {"v_mse": error.mean().detach(), "painted": painted.detach()}
        return loss + PAINT_LOSS * painted, metrics


class UNetStep:
    def __init__(self, profile: Profile, weights: Path, run_folder: Path) -> None:
        self.painter = ScenePainter(profile, weights)
        scheduler = build_scheduler(profile.sampler, profile.unet.prediction)
        self.objective = UNetObjective(self.painter.unet, scheduler.alphas_cumprod)
        self._held_back = [random_scene(np.random.default_rng([HELD_BACK_SEED, i])) for i in range(64)]
        self._held_back_latents = self.painter.encode(self._held_back)
        self._latents = self._cached_latents(run_folder / "latents.npy")
        scenes = [self.scene(i) for i in range(min(CACHED_SCENES, layout_painter.SCENES))]
        latents = torch.from_numpy(self._latents[: len(scenes)]).float()
        fit_painter(self.painter, self.objective.shown, scenes, latents, run_folder / "painter.safetensors")

    def scene(self, index: int) -> Scene:
        return random_scene(np.random.default_rng([SCENE_SEED, index]))

    def _cached_latents(self, path: Path) -> np.ndarray:
        """Latents of the training scenes, float16, encoded once a run: (CACHED_SCENES, C, h, w)."""
        if not path.exists():
            log.info("encoding %d scenes", CACHED_SCENES)
            chunks = [
                self.painter.encode([self.scene(i) for i in range(start, start + 100)]).half().numpy()
                for start in range(0, CACHED_SCENES, 100)
            ]
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path.with_suffix(".tmp.npy"), np.concatenate(chunks))
            path.with_suffix(".tmp.npy").replace(path)
        return np.load(path)

    def batch(self, rng: np.random.Generator) -> Batch:
        indices = rng.integers(CACHED_SCENES, size=BATCH_SIZE)
        scenes = [self.scene(int(i)) for i in indices]
        captions = [
            s.background.value if rng.random() < BACKGROUND_ONLY_CAPTIONS else canonical_caption(s, rng) for s in scenes
        ]
        conditions = self.painter.conditions(scenes, captions)
        nothing = torch.from_numpy(rng.random(BATCH_SIZE) < DROP_ALL)
        no_boxes = nothing | torch.from_numpy(rng.random(BATCH_SIZE) < DROP_BOXES)
        conditions["box_mask"] = conditions["box_mask"] * ~no_boxes.unsqueeze(-1)
        null = self.objective.unet.null_conditioning.cpu()
        conditions["conditioning"] = torch.where(nothing.view(-1, 1, 1), null, conditions["conditioning"])
        latents = torch.from_numpy(self._latents[indices]).float()
        return {**conditions, "latents": latents, **self._noise(rng, latents)}

    def _noise(self, rng: np.random.Generator, latents: Tensor) -> dict[str, Tensor]:
        noise = rng.standard_normal(tuple(latents.shape), dtype=np.float32)
        return {"noise": torch.from_numpy(noise), "t": torch.from_numpy(rng.integers(1000, size=len(latents)))}

    def evaluate(self) -> dict[str, float]:
        rng = np.random.default_rng(HELD_BACK_SEED)
        conditions = self.painter.conditions(self._held_back, [canonical_caption(s) for s in self._held_back])
        latents = self._held_back_latents
        batch = {**conditions, "latents": latents, **self._noise(rng, latents)}
        _, metrics = self.objective(on_device_of(self.objective, batch), 0)
        return {name: float(value) for name, value in metrics.items()}

    def picture(self, path: Path) -> None:
        """Eight held-back scenes above what the model draws from their boxes and captions."""
        scenes = self._held_back[:8]
        drawn = self.painter.draw(scenes, [canonical_caption(s) for s in scenes], steps=20, guidance=2.0, seed=0)
        true = to_image_range(scene_pixels(scenes, self.painter.profile.image_px))
        rows = [np.concatenate(list(images), axis=1) for images in (true, drawn)]
        Image.fromarray(np.concatenate(rows, axis=0)).save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.objective.unet, folder / "unet.safetensors")]

    def load_weights(self, folder: Path) -> None:
        load_module(self.objective.unet, folder / "unet.safetensors")
