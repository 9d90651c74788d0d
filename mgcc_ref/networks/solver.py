"""One step of the sampler as a stage, so that latents stay on a device between two evaluations of the UNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LARGEST = torch.finfo(torch.float32).max


class Solver(nn.Module):
    """Stage `solver`: a step of a linear multistep method. It has no weights; `schedule.py` finds the coefficients."""

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and predictions (1, C, h, w), newest first, then their coefficients (n,) -> the next latents, and
        whether all of their values are finite, (1,) bool.
        """
        *terms, coefficients = tensors
        first, *others = (c * term for c, term in zip(coefficients.split(1), terms, strict=True))
        following = sum(others, start=first)
        # a sum with a NaN or an infinity is not below the largest float, and every engine can add and compare
        return following, following.abs().sum().reshape(1) < _LARGEST
