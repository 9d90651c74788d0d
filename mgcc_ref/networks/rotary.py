"""Rotary position embedding (arXiv 2104.09864), in the half-split layout of Llama."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mgcc_ref.llm_config import Rope, RopeScaling


def rotary_tables(positions: Tensor, head_dim: int, theta: float, rope: Rope | None = None) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary embedding: each (S, head_dim), both halves equal (Llama's layout)."""
    halves = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    frequencies = theta ** (-halves / head_dim)
    if rope is not None:
        frequencies = stretched(frequencies, rope)
    angles = positions.float().unsqueeze(-1) * frequencies  # (S, d/2)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotary embedding to x (1, H, S, d)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def stretched(frequencies: Tensor, rope: Rope) -> Tensor:
    """The frequencies (d/2,), scaled for a longer context."""
    if rope.scaling is RopeScaling.LINEAR:
        return frequencies / rope.factor
    turns = rope.original_positions * frequencies / (2 * math.pi)  # within the original context
    low, high = rope.low_frequency_factor, rope.high_frequency_factor
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return frequencies * (kept + (1 - kept) / rope.factor)
