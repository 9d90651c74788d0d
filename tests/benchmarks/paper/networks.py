"""Evaluators of random weights in the published files' forms, and their values computed in another way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, max_pool2d, relu
from transformers import CLIPImageProcessorPil, CLIPModel

#: Of AlexNet's convolutions in torchvision: place, channels in and out, side, stride, padding, whether pooled before.
LAYERS = ((0, 3, 64, 11, 4, 2, False), (3, 64, 192, 5, 1, 2, True), (6, 192, 384, 3, 1, 1, True),
          (8, 384, 256, 3, 1, 1, False), (10, 256, 256, 3, 1, 1, False))  # fmt: skip


def write_alexnet(path: Path) -> Path:
    """The names and shapes of torchvision's file, its classifier cut to one row."""
    made = torch.Generator().manual_seed(21)
    state = {"classifier.1.weight": torch.zeros(1, 9216)}
    for place, before, after, side, *_ in LAYERS:
        spread = (2 / (before * side * side)) ** 0.5
        state[f"features.{place}.weight"] = spread * torch.randn(after, before, side, side, generator=made)
        state[f"features.{place}.bias"] = 0.1 * torch.randn(after, generator=made)
    torch.save(state, path)
    return path


def write_heads(path: Path) -> Path:
    """The names and shapes of `alex.pth` in the package lpips."""
    made = torch.Generator().manual_seed(22)
    state = {
        f"lin{i}.model.1.weight": torch.rand(1, after, 1, 1, generator=made)
        for i, (_, _, after, *_) in enumerate(LAYERS)
    }
    torch.save(state, path)
    return path


def clip_similarity(folder: Path, drawn: Image.Image, truth: Image.Image) -> float:
    """As `transformers` does it."""
    model, processor = CLIPModel.from_pretrained(folder), CLIPImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        one, other = (
            model.visual_projection(model.vision_model(**processor(images=i, return_tensors="pt")).pooler_output)[0]
            for i in (drawn, truth)
        )
    return float(one @ other / one.norm() / other.norm())


def lpips_by_hand(
    alexnet: Mapping[str, Tensor], heads: Mapping[str, Tensor], drawn: Image.Image, truth: Image.Image,
    shift: tuple[float, float, float] = (-0.030, -0.088, -0.188),
) -> float:  # fmt: skip
    """Equation 1 of arXiv 1801.03924: unit-length features, their squared difference weighted by channel, the means
    over all places summed over the layers."""
    scale = (0.458, 0.448, 0.450)
    levels = []
    for image in (drawn, truth):
        x = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        x = interpolate(x, (256, 256), mode="bilinear", antialias=True)
        x = (x - torch.tensor(shift).view(1, 3, 1, 1)) / torch.tensor(scale).view(1, 3, 1, 1)
        found = []
        for place, _, _, _, stride, padding, pooled in LAYERS:
            x = max_pool2d(x, 3, 2) if pooled else x
            x = relu(conv2d(x, alexnet[f"features.{place}.weight"], alexnet[f"features.{place}.bias"], stride, padding))
            found.append(x / x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-10))
        levels.append(found)
    total = 0.0
    for i, (one, other) in enumerate(zip(*levels, strict=True)):
        weights = heads[f"lin{i}.model.1.weight"].view(1, -1, 1, 1)
        total += float(((one - other).square() * weights).sum(1).mean())
    return total
