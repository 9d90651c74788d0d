"""The frozen causal language model (OPT, or Llama and Qwen) with a functional KV cache, and the [IMG] tokens.

It is written here rather than taken from `transformers`, so that one pass is a plain function of tensors
(embeddings and cache in; logits, features and cache out) that exports without changes. It is tested against
`transformers` in tests/ref/networks/test_llm.py. `published/llm.py` translates weight names.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgcc_ref.llm_config import LlmConfig
from mgcc_ref.networks.rotary import rotary_tables, rotate


class RmsNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps))


class SwiGlu(nn.Module):
    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        hidden, intermediate = config.hidden, config.intermediate
        self.gate = nn.Linear(hidden, intermediate, bias=config.has_bias("mlp.gate"))
        self.up = nn.Linear(hidden, intermediate, bias=config.has_bias("mlp.up"))
        self.down = nn.Linear(intermediate, hidden, bias=config.has_bias("mlp.down"))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class ReluMlp(nn.Module):
    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden, config.intermediate)
        self.down = nn.Linear(config.intermediate, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)))


class Attention(nn.Module):
    """Grouped-query causal attention over the cache and the new positions."""

    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        every, shared = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.query = nn.Linear(config.hidden, every, bias=config.has_bias("attention.query"))
        self.key = nn.Linear(config.hidden, shared, bias=config.has_bias("attention.key"))
        self.value = nn.Linear(config.hidden, shared, bias=config.has_bias("attention.value"))
        self.out = nn.Linear(every, config.hidden, bias=config.has_bias("attention.out"))
        self.query_key_norm = config.query_key_norm
        if config.query_key_norm:
            self.query_norm = RmsNorm(config.head_dim, config.norm_eps)
            self.key_norm = RmsNorm(config.head_dim, config.norm_eps)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor], mask: Tensor, rotary: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, _ = x.shape
        q = self.query(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)  # (B, H, S, d)
        k = self.key(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.value(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        if self.query_key_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)  # (B, H_kv, T, d)
        groups = self.heads // self.kv_heads
        every_k = k.repeat_interleave(groups, dim=1) if groups > 1 else k
        every_v = v.repeat_interleave(groups, dim=1) if groups > 1 else v
        mixed = F.scaled_dot_product_attention(q, every_k, every_v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1)), k, v


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.attention_norm = build_norm(config)
        self.attention = Attention(config)
        self.mlp_norm = build_norm(config)
        mlp = ReluMlp if config.family == "opt" else SwiGlu
        self.mlp = mlp(config)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor], mask: Tensor, rotary: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        mixed, key, value = self.attention(self.attention_norm(x), past, mask, rotary)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), key, value


def build_norm(config: LlmConfig) -> nn.Module:
    if config.family == "opt":
        return nn.LayerNorm(config.hidden, eps=config.norm_eps)
    return RmsNorm(config.hidden, config.norm_eps)


class ImageTokens(nn.Module):
    """The r learned [IMG] tokens: input embeddings (r, D), and output rows whose logits mean "draw here"."""

    def __init__(self, count: int, hidden: int) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(0.02 * torch.randn(count, hidden))
        self.head = nn.Linear(hidden, count)
        with torch.no_grad():  # an untrained head never asks for a picture
            self.head.weight.zero_()
            self.head.bias.fill_(-30.0)


class Blocks(Protocol):
    """A language model's blocks in order, in memory or not."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[nn.Module]: ...


class CausalLm(nn.Module):
    """Stage `llm`: inputs_embeds (B, S, D) and the cache of P positions -> logits, features, cache of P + S."""

    OPT_POSITION_OFFSET = 2  # OPT's learned positions start at row 2

    def __init__(self, config: LlmConfig, image_tokens: ImageTokens) -> None:
        super().__init__()
        if config.family not in ("llama", "opt"):
            raise ValueError(f"unknown language model family {config.family!r}; expected 'llama' or 'opt'")
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.hidden)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        if config.family == "opt":
            self.embed_positions = nn.Embedding(config.max_positions + self.OPT_POSITION_OFFSET, config.hidden)
        self.blocks: Blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = build_norm(config)
        if not config.tied:
            self.lm_head = nn.Linear(config.hidden, config.vocabulary, bias=False)
        self.image_tokens = image_tokens

    def empty_cache(self, batch: int = 1) -> tuple[Tensor, ...]:
        """A cache of zero positions: 2 x layers tensors (B, H_kv, 0, d)."""
        shape = (batch, self.config.kv_heads, 0, self.config.head_dim)
        weight = self.embed_tokens.weight
        return tuple(torch.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in range(2 * len(self.blocks)))

    def token_table(self) -> Tensor:
        """Input embeddings of the whole vocabulary, [IMG] tokens last: (V, D)."""
        return torch.cat([self.embed_tokens.weight, self.image_tokens.embeddings], dim=0)

    def embed(self, ids: Tensor) -> Tensor:
        """Rows of `token_table`, (...) -> (..., D), without building the table (23 ms a call with SmolLM2)."""
        words = len(self.embed_tokens.weight)
        image = self.image_tokens.embeddings[(ids - words).clamp_min(0)]
        return torch.where((ids >= words).unsqueeze(-1), image, self.embed_tokens(ids.clamp_max(words - 1)))

    def forward(self, inputs_embeds: Tensor, *past: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Returns (logits (B, 1, V), hidden_states (B, S, D_f), *present).

        `mask` (B, 1, S, T) replaces the causal mask; only training uses it, for padded batches.
        """
        hidden_states, last, present = self.features(inputs_embeds, past, mask)
        return self.logits(last), hidden_states, *present

    def features(
        self,
        inputs_embeds: Tensor,
        past: tuple[Tensor, ...],
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(feature layers (B, S, D_f), normed last layer (B, S, D), present) without the vocabulary projection.

        `positions` (S,) int64 replaces the running count; only training uses it, with a mask of its own.
        """
        layers, present = self._pass(len(self.blocks), inputs_embeds, past, mask, positions)
        return torch.cat([layers[i] for i in self.config.feature_layers], dim=-1), layers[-1], present

    def context_features(
        self,
        inputs_embeds: Tensor,
        past: tuple[Tensor, ...],
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """(feature layers (B, S, D_f), present) of `features`, computed by the first `feature_depth` blocks alone.

        For training: `past` and `present` hold only these blocks' keys and values.
        """
        layers, present = self._pass(self.config.feature_depth, inputs_embeds, past, mask, positions)
        return torch.cat([layers[i] for i in self.config.feature_layers], dim=-1), present

    def _pass(
        self, depth: int, inputs_embeds: Tensor, past: tuple[Tensor, ...], mask: Tensor | None, positions: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """hidden_states 0 to `depth`, and the cache of the first `depth` blocks."""
        x, mask, rotary = self.enter(inputs_embeds, past[0].shape[2], mask, positions)
        layers, present = [x], []
        for i, block in enumerate(islice(self.blocks, depth)):
            x, key, value = block(x, (past[2 * i], past[2 * i + 1]), mask, rotary)
            layers.append(x)
            present += [key, value]
        if depth == len(self.blocks):
            layers[-1] = self.final_norm(x)
        return layers, present

    def enter(
        self, inputs_embeds: Tensor, before: int, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """The first block's inputs after `before` positions: x (B, S, D), mask (S, T) bool, cos and sin (S, d).

        `positions` are (S,), or for OPT (B, S) where requests have different padding.
        """
        length = inputs_embeds.shape[1]
        if positions is None:
            positions = torch.arange(length, device=inputs_embeds.device) + before
        if mask is None:
            mask = torch.arange(before + length, device=inputs_embeds.device) <= positions.unsqueeze(-1)  # (S, T)
        if self.config.family == "opt":
            return inputs_embeds + self.embed_positions(positions + self.OPT_POSITION_OFFSET), mask, None
        rotary = rotary_tables(positions, self.config.head_dim, self.config.rope_theta, self.config.rope)
        return inputs_embeds, mask, rotary

    def logits(self, last: Tensor) -> Tensor:
        """Normed last layer (B, S, D) -> logits (B, 1, V) of its last position, [IMG] tokens last."""
        last = last[:, -1:]
        words = F.linear(last, self.embed_tokens.weight if self.config.tied else self.lm_head.weight)
        return torch.cat([words, self.image_tokens.head(last)], dim=-1)
