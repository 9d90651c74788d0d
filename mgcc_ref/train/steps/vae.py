"""Steps `vae` and `decoder`: the autoencoder, on scenes drawn afresh for every batch.

`decoder` trains the decoder further, alone: the latents stay the same, so a UNet can train on them meanwhile.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from mgcc_ref.config import Profile
from mgcc_ref.networks.vae import PixelAutoencoder
from mgcc_ref.story.world.scene import random_scene
from mgcc_ref.train.loop import Batch, on_device_of
from mgcc_ref.train.pixels import psnr_db, scene_pixels, to_image_range
from mgcc_ref.weights import load_module, save_module

BATCH_SIZE = 16
LIVE_STATISTICS_STEPS = 500  # live BatchNorm statistics lose absolute colour; freeze them once they have settled
LATENT_NOISE = 0.15  # makes the decoder robust to errors of the UNet
DECODER_LATENT_NOISE = 0.10
HELD_BACK_SEED = 1_000_003


def reconstruction_loss(restored: Tensor, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 + 0.5 x L1 of the image gradients + 2 x MSE; and the MSE as a metric."""
    error = restored - pixels
    gradient = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    mse = error.square().mean()
    return error.abs().mean() + 0.5 * gradient + 2.0 * mse, {"mse": mse.detach()}


class VaeObjective(nn.Module):
    """`reconstruction_loss` of both halves together, with noise on the latents."""

    def __init__(self, vae: PixelAutoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        live = step < LIVE_STATISTICS_STEPS
        self.vae.latent_norm.train(live)
        pixels = batch["pixels"]
        latents = self.vae.encode(pixels)
        restored = self.vae.decode(latents + LATENT_NOISE * torch.randn_like(latents))
        loss, metrics = reconstruction_loss(restored, pixels)
        if not live:
            mean, variance = latents.mean(dim=(0, 2, 3)), latents.var(dim=(0, 2, 3))
            loss = loss + 0.01 * (mean.square() + F.relu(variance - 1).square()).mean()
        return loss, metrics


class DecoderObjective(nn.Module):
    """`reconstruction_loss` of the decoder behind a frozen encoder, with less noise on the latents."""

    def __init__(self, vae: PixelAutoencoder) -> None:
        super().__init__()
        self.vae = vae
        vae.encoder.requires_grad_(False)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        self.vae.latent_norm.eval()
        with torch.no_grad():
            latents = self.vae.encode(batch["pixels"])
        restored = self.vae.decode(latents + DECODER_LATENT_NOISE * torch.randn_like(latents))
        return reconstruction_loss(restored, batch["pixels"])


class VaeStep:
    """Trains `PixelAutoencoder` from scratch."""

    def __init__(self, profile: Profile) -> None:
        vae = PixelAutoencoder(profile.vae.channels, profile.unet.latent_channels)
        self.vae = convert_conv2d_weight_memory_format(vae, torch.channels_last)
        self.objective: nn.Module = VaeObjective(vae)
        rng = np.random.default_rng(HELD_BACK_SEED)
        self.image_px = profile.image_px
        self._held_back = scene_pixels([random_scene(rng) for _ in range(64)], self.image_px)

    def batch(self, rng: np.random.Generator) -> Batch:
        return {"pixels": scene_pixels([random_scene(rng) for _ in range(BATCH_SIZE)], self.image_px)}

    def _restored(self) -> np.ndarray:
        pixels = on_device_of(self.vae, {"pixels": self._held_back})["pixels"]
        return to_image_range(self.vae.decode(self.vae.encode(pixels)))

    def evaluate(self) -> dict[str, float]:
        return {"psnr_db": psnr_db(self._restored(), to_image_range(self._held_back))}

    def picture(self, path: Path) -> None:
        both = (to_image_range(self._held_back), self._restored())
        rows = [np.concatenate(list(images[:8]), axis=1) for images in both]
        Image.fromarray(np.concatenate(rows, axis=0)).save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.vae, folder / "vae.safetensors")]

    def load_weights(self, folder: Path) -> None:
        load_module(self.vae, folder / "vae.safetensors")


class DecoderStep(VaeStep):
    """Starts from `vae.safetensors` of the weights folder, and writes it again with a better decoder."""

    def __init__(self, profile: Profile, weights: Path) -> None:
        super().__init__(profile)
        load_module(self.vae, weights / "vae.safetensors")
        self.objective = DecoderObjective(self.vae)
