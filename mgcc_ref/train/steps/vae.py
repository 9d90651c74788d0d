"""Step `vae`: the autoencoder, on scenes drawn afresh for every batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from mgcc_ref.config import Profile
from mgcc_ref.story.scene import random_scene, render
from mgcc_ref.train.loop import Batch
from mgcc_ref.vae import PixelAutoencoder
from mgcc_ref.weights import save_module

BATCH_SIZE = 16
LIVE_STATISTICS_STEPS = 500  # live BatchNorm statistics lose absolute colour; freeze them once they have settled
LATENT_NOISE = 0.15  # what the decoder must forgive the UNet
HELD_BACK_SEED = 1_000_003


def to_model_range(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)  # channels_last


def to_image_range(pixels: Tensor) -> np.ndarray:
    """(B, 3, H, W) in about [-1, 1] -> (B, H, W, 3) uint8."""
    scaled = pixels.clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB; inputs (B, H, W, 3) uint8."""
    error = ((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean(axis=(1, 2, 3))
    return float((10 * np.log10(255.0**2 / np.maximum(error, 1e-9))).mean())


class VaeObjective(nn.Module):
    """L1 + 0.5 x L1 of the image gradients + 2 x MSE, with noise on the latents."""

    def __init__(self, vae: PixelAutoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        live = step < LIVE_STATISTICS_STEPS
        self.vae.latent_norm.train(live)
        pixels = batch["pixels"]
        latents = self.vae.encode(pixels)
        restored = self.vae.decode(latents + LATENT_NOISE * torch.randn_like(latents))
        error = restored - pixels
        gradient = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        mse = error.square().mean()
        loss = error.abs().mean() + 0.5 * gradient + 2.0 * mse
        if not live:
            mean, variance = latents.mean(dim=(0, 2, 3)), latents.var(dim=(0, 2, 3))
            loss = loss + 0.01 * (mean.square() + F.relu(variance - 1).square()).mean()
        return loss, {"mse": mse.detach()}


class VaeStep:
    """Trains `PixelAutoencoder` from scratch."""

    def __init__(self, profile: Profile) -> None:
        vae = PixelAutoencoder(profile.vae.channels, profile.unet.latent_channels)
        self.vae = convert_conv2d_weight_memory_format(vae, torch.channels_last)
        self.objective = VaeObjective(vae)
        rng = np.random.default_rng(HELD_BACK_SEED)
        self._held_back = np.stack([render(random_scene(rng)) for _ in range(64)])

    def batch(self, rng: np.random.Generator) -> Batch:
        images = np.stack([render(random_scene(rng)) for _ in range(BATCH_SIZE)])
        return {"pixels": to_model_range(images)}

    def _restored(self) -> np.ndarray:
        self.vae.eval()
        return to_image_range(self.vae.decode(self.vae.encode(to_model_range(self._held_back))))

    def evaluate(self) -> dict[str, float]:
        return {"psnr_db": psnr_db(self._restored(), self._held_back)}

    def picture(self, path: Path) -> None:
        restored = self._restored()
        rows = [np.concatenate(list(images[:8]), axis=1) for images in (self._held_back, restored)]
        Image.fromarray(np.concatenate(rows, axis=0)).save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.vae, folder / "vae.safetensors")]
