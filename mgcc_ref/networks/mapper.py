"""GILLMapper (arXiv 2305.17216, section 3.2): image-token features to the UNet's conditioning space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mgcc_ref.config import RefinerConfig

# torch's inference-only attention kernel does not export, and its results differ in the last bits.
torch.backends.mha.set_fastpath_enabled(False)


class Mapper(nn.Module):
    """(B, r, D_f) -> (B, N_c, D_c): Linear, encoder-decoder transformer with N_c learned queries, Linear."""

    def __init__(self, config: RefinerConfig, features: int, tokens_out: int, width_out: int) -> None:
        super().__init__()
        hidden = config.mapper_hidden
        self.fc = nn.Linear(features, hidden)
        self.tfm = nn.Transformer(
            d_model=hidden,
            nhead=config.mapper_heads,
            num_encoder_layers=config.mapper_layers,
            num_decoder_layers=config.mapper_layers,
            dim_feedforward=config.mapper_feed_forward,
            dropout=0.0,
            norm_first=True,
            batch_first=True,
        )
        self.query_embs = nn.Parameter(torch.randn(1, tokens_out, hidden) * hidden**-0.5)
        self.model = nn.Linear(hidden, width_out)

    def forward(self, image_features: Tensor) -> Tensor:
        queries = self.query_embs.expand(image_features.shape[0], -1, -1)
        return self.model(self.tfm(self.fc(image_features), queries))
