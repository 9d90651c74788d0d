"""Shared parts of the steps that train a UNet on cached latents: noise levels, loss, scenes, latents, pictures."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mgcc_ref.config import Profile
from mgcc_ref.schedule import build_scheduler
from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.story.world.scene import Scene, random_scene
from mgcc_ref.train.errors import TrainingError
from mgcc_ref.train.loop import Batch
from mgcc_ref.train.painter import ScenePainter
from mgcc_ref.train.pixels import scene_pixels, to_image_range

log = logging.getLogger("mgcc.train")


@dataclass(frozen=True)
class SetSize:
    """A step's numbers of scenes, in all and in a batch; None: the step's own constants."""

    batch: int | None = None
    scenes: int | None = None


USUAL = SetSize()
BOX_WEIGHT = 2.0  # extra loss weight inside the boxes: objects are small, and they matter most
SCENE_SEED = 3_100_003
HELD_BACK_SEED = 4_000_003


class NoiseLevels(nn.Module):
    """The training schedule of a profile, for the v-prediction."""

    signal: Tensor  # square roots of the schedule's cumulative alphas, (1000,)
    sigma: Tensor

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        alphas_cumprod = build_scheduler(profile.sampler, profile.unet.prediction).alphas_cumprod
        self.register_buffer("signal", alphas_cumprod.sqrt(), persistent=False)
        self.register_buffer("sigma", (1 - alphas_cumprod).sqrt(), persistent=False)

    def noised(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch's `latents` with `noise` at `t`, and the v to predict from them: (B, C, h, w) each."""
        t, noise, x0 = batch["t"], batch["noise"], batch["latents"]
        signal, sigma = self.signal[t].view(-1, 1, 1, 1), self.sigma[t].view(-1, 1, 1, 1)
        return signal * x0 + sigma * noise, signal * noise - sigma * x0


def weighted_error(prediction: Tensor, target: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error with extra weight in the cells `inside` boxes (B, h, w), and the plain one."""
    error = (prediction - target).square().mean(dim=1)
    return (error * (1 + BOX_WEIGHT * inside)).mean(), error.mean().detach()


class _Pictures(Dataset[tuple[list[Scene], Tensor]]):
    """Scenes with their pictures, a hundred an item: drawing one takes 3 ms."""

    SIZE = 100

    def __init__(self, image_px: int) -> None:
        self._image_px = image_px

    def __getitem__(self, number: int) -> tuple[list[Scene], Tensor]:
        scenes = [scene_of(i) for i in range(number * self.SIZE, (number + 1) * self.SIZE)]
        return scenes, scene_pixels(scenes, self._image_px)


def scene_of(index: int) -> Scene:
    """Training scene `index`, the same in every run."""
    return random_scene(np.random.default_rng([SCENE_SEED, index]))


class SceneLatents:
    """Training scenes by number with their latents, encoded once a run, and 64 held-back scenes."""

    def __init__(self, painter: ScenePainter, count: int, path: Path) -> None:
        self.painter, self.count = painter, count
        self._scenes: dict[int, Scene] = {}
        self.held_back = [random_scene(np.random.default_rng([HELD_BACK_SEED, i])) for i in range(64)]
        self.held_back_latents = painter.encode(self.held_back)
        self._latents = self._cached(path)

    def scene(self, index: int) -> Scene:
        if index not in self._scenes:
            self._scenes[index] = scene_of(index)
        return self._scenes[index]

    def of(self, indices: np.ndarray) -> Tensor:
        """Latents of these scenes: (B, C, h, w)."""
        return torch.from_numpy(self._latents[indices]).float()

    def _cached(self, path: Path) -> np.ndarray:
        """Latents of all training scenes, float16: (count, C, h, w)."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path.with_suffix(".tmp.npy"), self._encode())
            path.with_suffix(".tmp.npy").replace(path)
        found: np.ndarray = np.load(path)
        if len(found) != self.count:
            raise TrainingError(f"{path} has {len(found)} scenes, expected {self.count}; choose another --run folder")
        return found

    @torch.no_grad()
    def _encode(self) -> np.ndarray:
        pictures, device = _Pictures(self.painter.profile.image_px), PartialState().device
        numbers = range(math.ceil(self.count / pictures.SIZE))
        # a GPU would wait for one core; without a GPU, encoding takes longest and needs the cores itself
        workers = (os.cpu_count() or 1) if device.type == "cuda" else 0
        context = "fork" if workers else None
        drawn = DataLoader(
            pictures, batch_size=None, sampler=numbers, num_workers=workers, multiprocessing_context=context
        )
        chunks, vae = [], self.painter.vae.to(device)
        for number, (scenes, pixels) in enumerate(drawn):
            self._scenes.update(enumerate(scenes, number * pictures.SIZE))
            chunks.append(vae.encode(pixels.to(device)).half().cpu().numpy())
            if number % 50 == 0:
                log.info("encoded %d of %d scenes", number * pictures.SIZE, self.count)
        vae.cpu()
        return np.concatenate(chunks)[: self.count]


def draw_noise(rng: np.random.Generator, latents: Tensor) -> dict[str, Tensor]:
    """Noise for the latents, and timesteps."""
    noise = rng.standard_normal(tuple(latents.shape), dtype=np.float32)
    return {"noise": torch.from_numpy(noise), "t": torch.from_numpy(rng.integers(1000, size=len(latents)))}


def inside_psnr_db(painter: ScenePainter, scenes: list[Scene]) -> float:
    """PSNR in dB, inside the boxes, of pictures drawn with the sampler's own settings against the true ones."""
    sampler = painter.profile.sampler
    captions = [canonical_caption(s) for s in scenes]
    drawn = painter.draw(
        scenes, captions, steps=sampler.default_steps, guidance=sampler.default_guidance or 1.0, seed=HELD_BACK_SEED
    )
    true = to_image_range(scene_pixels(scenes, painter.profile.image_px))
    squared = (drawn.astype(np.float64) - true) ** 2
    cells = painter.boxes(scenes)["inside"].numpy()
    inside = cells.repeat(true.shape[1] // cells.shape[1], axis=1).repeat(true.shape[2] // cells.shape[2], axis=2) > 0
    return float(10 * np.log10(255.0**2 / squared[inside].mean()))


def save_drawn(painter: ScenePainter, scenes: list[Scene], path: Path) -> None:
    """Save a row of true pictures above those that the UNet draws from their captions and, if it reads them, boxes."""
    drawn = painter.draw(scenes, [canonical_caption(s) for s in scenes], steps=20, guidance=2.0, seed=0)
    true = to_image_range(scene_pixels(scenes, painter.profile.image_px))
    rows = [np.concatenate(list(images), axis=1) for images in (true, drawn)]
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)
