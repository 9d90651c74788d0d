"""The cross-modal refinement module (CMRM) and, after it, the mapper: stage `refiner`.

The paper: cross-attention between the image-token features f_I and the multimodal features f_mm. Our reading:
pre-norm residual blocks of cross-attention and feed-forward. How far a position of f_mm is from its end is told too,
since the last picture or sentence that shows a place is the one that holds. With zero blocks the stage is GILL's.
"""

from __future__ import annotations

from torch import Tensor, nn

from mgcc_ref.attention import Attention, DistanceFromEnd, FeedForward, LayerwiseNorm
from mgcc_ref.config import RefinerConfig
from mgcc_ref.mapper import Mapper


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
    """(f_I (B, r, D_f), f_mm (B, S, D_f), mask (B, S) bool) -> conditioning (B, N_c, D_c)."""

    def __init__(self, config: RefinerConfig, features: int, layer_width: int, tokens_out: int, width_out: int) -> None:
        super().__init__()
        self.norm = LayerwiseNorm(features, layer_width)
        self.from_end = DistanceFromEnd(features) if config.cmrm_blocks else nn.Identity()
        self.blocks = nn.ModuleList(RefinementBlock(features, config) for _ in range(config.cmrm_blocks))
        self.mapper = Mapper(config, features, tokens_out, width_out)

    def forward(self, image_features: Tensor, context_features: Tensor, context_mask: Tensor) -> Tensor:
        refined, context = self.norm(image_features), self.from_end(self.norm(context_features))
        for block in self.blocks:
            refined = block(refined, context, context_mask)
        return self.mapper(refined)
