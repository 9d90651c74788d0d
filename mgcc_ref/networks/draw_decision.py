"""The decision to draw: whether a turn of a dialogue asks for a picture.

A logistic regression on what the language model made of the turn. It reads the mean of f_mm over the turn, so that each
word counts, and f_mm at the last position, from which the answer would go on. The output row of `[IMG1]`, GILL's own
way (arXiv 2305.17216, section 3), sees that last position alone: of 240 turns in unseen phrasings it had 0.85 right.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def turn_summary(features: Tensor, turn: slice) -> Tensor:
    """What the decision reads, (2 D_f,): of f_mm (S, D_f), the mean of the turn's rows, then the last row."""
    return torch.cat([features[turn].mean(dim=0), features[-1]])


class DrawDecision(nn.Module):
    """`features` is D_f, the width of f_mm."""

    mean: Tensor
    spread: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2 * features))
        self.register_buffer("spread", torch.ones(2 * features))
        self.row = nn.Linear(2 * features, 1)
        nn.init.zeros_(self.row.weight)
        nn.init.zeros_(self.row.bias)

    def standardise(self, summaries: Tensor) -> None:
        """Scale inputs as `summaries` (N, 2 D_f) are: the residual stream's few huge dimensions would dominate.

        In fp16, which is how they are saved: a mean that was rounded afterwards would move the decision.
        """
        self.mean.copy_(summaries.mean(dim=0).half())
        self.spread.copy_(summaries.std(dim=0).clamp_min(1e-3).half())

    def forward(self, summaries: Tensor) -> Tensor:
        """The logit of drawing (B,) for `turn_summary` of each turn (B, 2 D_f)."""
        logits: Tensor = self.row((summaries - self.mean) / self.spread).squeeze(-1)
        return logits

    def folded(self) -> Tensor:
        """The same function of unscaled summaries: 2 D_f weights, then the bias, (2 D_f + 1,) float32."""
        weights = self.row.weight[0].double() / self.spread.double()
        bias = self.row.bias.double() - (weights * self.mean.double()).sum()
        return torch.cat([weights, bias]).float().detach()
