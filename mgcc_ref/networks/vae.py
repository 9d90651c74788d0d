"""The story profile's autoencoder: 8x reduction, 8 latent channels, no norms, sub-pixel up-sampling.

The paper uses Stable Diffusion's AutoencoderKL. `PixelAutoencoder` has the same two methods
(`encode`, `decode`) at a size that two CPU cores train in half an hour.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from mgcc_ref.config import VaeConfig


class ResidualBlock(nn.Module):
    """x + Conv(SiLU(Conv(SiLU(x)))), both 3x3; the second starts near zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.conv2.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Encoder(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, C, H/8, W/8)."""

    def __init__(self, channels: tuple[int, ...], latent_channels: int) -> None:
        super().__init__()
        c1, c2, c3 = channels
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, c1, 3, padding=1),
            ResidualBlock(c1),
            nn.Conv2d(c1, c2, 3, stride=2, padding=1),
            ResidualBlock(c2),
            nn.Conv2d(c2, c3, 3, stride=2, padding=1),
            ResidualBlock(c3),
            ResidualBlock(c3),
            nn.SiLU(),
            nn.Conv2d(c3, latent_channels, 3, padding=1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(pixels)


class Decoder(nn.Module):
    """(B, C, h, w) -> (B, 3, 8h, 8w). A tanh bounds the input, so that a stray latent cannot explode."""

    def __init__(self, channels: tuple[int, ...], latent_channels: int) -> None:
        super().__init__()
        c1, c2, c3 = channels
        self.layers = nn.Sequential(
            nn.Conv2d(latent_channels, c3, 3, padding=1),
            ResidualBlock(c3),
            ResidualBlock(c3),
            ResidualBlock(c3),
            nn.Conv2d(c3, 4 * c2, 3, padding=1),
            nn.PixelShuffle(2),
            ResidualBlock(c2),
            ResidualBlock(c2),
            nn.Conv2d(c2, 4 * c1, 3, padding=1),
            nn.PixelShuffle(2),
            ResidualBlock(c1),
            ResidualBlock(c1),
            nn.SiLU(),
            nn.Conv2d(c1, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(3.0 * torch.tanh(latents / 3.0))


class PixelAutoencoder(nn.Module):
    """Autoencoder. A BatchNorm without scale and shift gives its latents unit variance, so it needs no KL term."""

    def __init__(self, channels: tuple[int, ...] = (32, 64, 128), latent_channels: int = 8) -> None:
        super().__init__()
        self.encoder = Encoder(channels, latent_channels)
        self.latent_norm = nn.BatchNorm2d(latent_channels, affine=False, momentum=0.02)
        self.decoder = Decoder(channels, latent_channels)

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> latents (B, C, H/8, W/8), about unit variance."""
        return self.latent_norm(self.encoder(pixels))

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, 8h, 8w) in about [-1, 1]; the caller clips."""
        return self.decoder(latents)


def build_autoencoder(config: VaeConfig, latent_channels: int) -> nn.Module:
    """The profile's autoencoder with fresh weights: ours, or diffusers' AutoencoderKL."""
    if not config.kl:
        return PixelAutoencoder(config.channels, latent_channels)
    count = len(config.channels)
    return AutoencoderKL(
        latent_channels=latent_channels,
        block_out_channels=config.channels,
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        layers_per_block=2,
        scaling_factor=config.scaling_factor,
    )


class VaeDecoder(nn.Module):
    """Stage `vae_decoder`: latents (1, C, h, w) as the UNet leaves them -> image (1, 3, H, W) in about [-1, 1]."""

    autoencoder: Any  # ours or diffusers': a module with `decode`

    def __init__(self, autoencoder: nn.Module, config: VaeConfig) -> None:
        super().__init__()
        self.autoencoder, self.kl, self.scaling_factor = autoencoder, config.kl, config.scaling_factor

    def forward(self, latents: Tensor) -> Tensor:
        if self.kl:
            return self.autoencoder.decode(latents / self.scaling_factor, return_dict=False)[0]
        return self.autoencoder.decode(latents)
