"""Attention layers that the refinement module, the grounder and the visual projection share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgcc_ref.networks.rotary import rotate


class LayerwiseNorm(nn.Module):
    """Normalise each of the language model's concatenated feature layers by itself: (B, S, D_f) -> (B, S, D_f).

    The layers differ in scale by an order of magnitude; in one norm over all, the largest would dominate.
    """

    def __init__(self, features: int, layer_width: int) -> None:
        super().__init__()
        if features % layer_width:
            raise ValueError(f"feature width {features} is no multiple of the layer width {layer_width}")
        self.layer_width = layer_width

    def forward(self, features: Tensor) -> Tensor:
        chunks = features.split(self.layer_width, dim=-1)
        return torch.cat([F.layer_norm(chunk, (self.layer_width,)) for chunk in chunks], dim=-1)


_LONGEST_PERIOD, _OCTAVES = 1024.0, 8  # of `DistanceFromEnd`'s sines, in positions


class DistanceFromEnd(nn.Linear):
    """Adds to (B, S, width) each position's distance from the last: sines and cosines of eight periods up to 1,024.

    Of two statements about a thing the later one holds, and attention alone does not know the order. Batches are
    padded on the left, so padding shifts nothing. The layer starts at zero: it can be added to a trained module.
    """

    def __init__(self, width: int) -> None:
        super().__init__(2 * _OCTAVES, width)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        away = torch.arange(x.shape[1] - 1, -1, -1, device=x.device).float() / _LONGEST_PERIOD
        angles = away.unsqueeze(-1) * (2 * math.pi * 2.0 ** torch.arange(_OCTAVES, device=x.device))
        return x + super().forward(torch.cat([angles.sin(), angles.cos()], dim=-1))


class Attention(nn.Module):
    """Multi-head attention of queries (B, Q, W_q) over memory (B, S, W_m), at an inner width of its own."""

    def __init__(self, query_width: int, memory_width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(query_width, inner)
        self.key = nn.Linear(memory_width, inner)
        self.value = nn.Linear(memory_width, inner)
        self.out = nn.Linear(inner, query_width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, length, d)

    def remember(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of memory (B, S, W_m), for repeated attention to it: each (B, heads, S, d)."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def forward(
        self,
        queries: Tensor,
        memory: Tensor | tuple[Tensor, Tensor],
        memory_mask: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """`memory_mask` (B, S) bool is true at positions to attend to; `rotary` is applied to queries and keys."""
        mask = None if memory_mask is None else memory_mask[:, None, None, :]
        q = self._split(self.query(queries))
        k, v = self.remember(memory) if isinstance(memory, Tensor) else memory
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """Linear - GELU - Linear at `inner` width, with dropout between."""

    def __init__(self, width: int, inner: int, dropout: float = 0.0) -> None:
        super().__init__(nn.Linear(width, inner), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner, width))
