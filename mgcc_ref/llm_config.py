"""Sizes and choices of the frozen language model: all that differs between one OPT, Llama or Qwen and another."""

from __future__ import annotations

import enum
from dataclasses import dataclass

#: A language model above this is read, exported and run block by block. SmolLM2-135M is 0.5 GB, OPT-1.3B 5.3 GB.
LARGEST_WHOLE_LLM_BYTES = 4 * 2**30


class RopeScaling(enum.StrEnum):
    """How rotary frequencies are scaled for a longer context than that of the first training."""

    LINEAR = "linear"  # all divided by the factor
    LLAMA3 = "llama3"  # the low ones divided, the high ones kept, those between interpolated (Llama 3.1, 3.2)


@dataclass(frozen=True)
class Rope:
    """A scaled rotary embedding. Only LLAMA3 uses the last three fields."""

    scaling: RopeScaling
    factor: float
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True)
class LlmConfig:
    """The frozen language model. `feature_layers` index hidden_states: 0 is the embeddings, `layers` the normed last.

    Qwen is of family "llama", with biases (Qwen 2) or norms of queries and keys (Qwen 3).
    """

    family: str  # "llama" or "opt": how a block is built
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int  # without the [IMG] tokens
    max_positions: int
    feature_layers: tuple[int, ...]
    source: str = ""  # hub id, GGUF package or local folder; empty: seeded random weights
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0  # Llama family only
    by_block: bool = False  # read, exported and run block by block at any size, as models that are `too_large`
    head_width: int = 0  # 0: hidden / heads
    rope: Rope | None = None  # None: not scaled
    tied: bool = True  # the vocabulary projection is the embedding table
    biased: tuple[str, ...] = ()  # linear layers of a Llama block that have a bias; all of OPT's have one
    query_key_norm: bool = False

    @property
    def head_dim(self) -> int:
        return self.head_width or self.hidden // self.heads

    @property
    def feature_dim(self) -> int:
        """D_f: the width of hidden_states as the contract gives them."""
        return self.hidden * len(self.feature_layers)

    @property
    def feature_depth(self) -> int:
        """Number of blocks that compute the feature layers."""
        return max(self.feature_layers)

    @property
    def block_parameters(self) -> int:
        """Number of weights in one decoder block's matrices."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim
        return attention + (2 if self.family == "opt" else 3) * self.hidden * self.intermediate

    @property
    def too_large(self) -> bool:
        """Whether its fp32 weights exceed `LARGEST_WHOLE_LLM_BYTES`."""
        tables = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return 4 * (self.layers * self.block_parameters + tables) > LARGEST_WHOLE_LLM_BYTES

    @property
    def streamed(self) -> bool:
        """Whether `llm_layers.py` and the exporter work block by block."""
        return self.by_block or self.too_large

    def has_bias(self, layer: str) -> bool:
        """Whether a linear layer of a block, such as `attention.query`, has a bias."""
        return self.family == "opt" or layer in self.biased
