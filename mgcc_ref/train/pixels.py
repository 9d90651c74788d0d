"""Pictures of scenes in the networks' format and back, and the PSNR of two pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mgcc_ref.story.world.scene import IMAGE_PX, Scene, render


def to_model_range(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)  # channels_last


def scene_pixels(scenes: Sequence[Scene], image_px: int) -> Tensor:
    """Pictures of the scenes at the profile's size: (B, 3, image_px, image_px) float32 in [-1, 1]."""
    pixels = to_model_range(np.stack([render(scene) for scene in scenes]))
    if image_px != IMAGE_PX:  # the tiny profile only
        pixels = F.interpolate(pixels, size=(image_px, image_px), mode="area")
    return pixels


def to_image_range(pixels: Tensor) -> np.ndarray:
    """(B, 3, H, W) in about [-1, 1] -> (B, H, W, 3) uint8."""
    scaled = pixels.clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB; inputs (B, H, W, 3) uint8."""
    error = ((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean(axis=(1, 2, 3))
    return float((10 * np.log10(255.0**2 / np.maximum(error, 1e-9))).mean())
