"""The cross-modal refinement module (CMRM) and, after it, the mapper: stage `refiner`.

The paper: cross-attention between the image-token features f_I and the multimodal features f_mm. Our reading:
pre-norm residual blocks of cross-attention and feed-forward. Each position's distance from the end is added to them,
since the last picture or sentence that shows a background is the one that holds (not in `Refinement.UNORDERED`,
which an ablation compares).

GILL has no such module (`Refinement.GILL`): its mapper reads the last layer's features of the [IMG] tokens with
their input embeddings added. The CMRM without blocks still norms, so it differs from GILL: by 0.21 on random weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mgcc_ref.config import Refinement, RefinerConfig
from mgcc_ref.networks.attention import Attention, DistanceFromEnd, FeedForward, LayerwiseNorm
from mgcc_ref.networks.mapper import Mapper


class RefinementBlock(nn.Module):
    """f_I + CrossAttention(q = f_I, k = v = f_mm), then + FeedForward; both pre-norm."""

    def __init__(self, features: int, config: RefinerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(features)
        self.attention = Attention(features, features, config.cmrm_inner, config.cmrm_heads)
        self.feed_forward_norm = nn.LayerNorm(features)
        self.feed_forward = FeedForward(features, config.cmrm_feed_forward)

    def forward(self, image_features: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        x = image_features + self.attention(self.attention_norm(image_features), context, mask)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Refiner(nn.Module):
    """(f_I (B, r, D_f), f_mm (B, S, D_f), mask (B, S) bool) -> conditioning (B, N_c, D_c).

    GILL adds the [IMG] tokens' input embeddings, which belong to the language model: `take` copies them here, and
    training passes them to `forward` as `image_embeddings` (r, D).
    """

    image_embeddings: Tensor

    def __init__(
        self,
        config: RefinerConfig,
        features: int,
        layer_width: int,
        tokens_out: int,
        width_out: int,
        tokens_in: int = 8,
    ) -> None:
        super().__init__()
        self.refinement = config.refinement
        if self.refinement is Refinement.GILL and features != layer_width:
            raise ValueError(
                f"GILL's mapper reads one layer of {layer_width} features, expected no more; got {features}"
            )
        gill = self.refinement is Refinement.GILL
        if gill:
            self.register_buffer("image_embeddings", torch.zeros(tokens_in, layer_width), persistent=False)
        self.norm = nn.Identity() if gill else LayerwiseNorm(features, layer_width)
        ordered = config.cmrm_blocks and self.refinement is Refinement.CMRM
        self.from_end = DistanceFromEnd(features) if ordered else nn.Identity()
        self.blocks = nn.ModuleList(RefinementBlock(features, config) for _ in range(config.cmrm_blocks))
        self.mapper = Mapper(config, features, tokens_out, width_out)

    def take(self, image_embeddings: Tensor) -> None:
        """Copy the [IMG] tokens' input embeddings (r, D), if GILL needs them."""
        if self.refinement is Refinement.GILL:
            self.image_embeddings.copy_(image_embeddings)

    def forward(
        self,
        image_features: Tensor,
        context_features: Tensor,
        context_mask: Tensor,
        image_embeddings: Tensor | None = None,
    ) -> Tensor:
        if self.refinement is Refinement.GILL:
            return self.mapper(
                image_features + (self.image_embeddings if image_embeddings is None else image_embeddings)
            )
        refined, context = self.norm(image_features), self.from_end(self.norm(context_features))
        for block in self.blocks:
            refined = block(refined, context, context_mask)
        return self.mapper(refined)
