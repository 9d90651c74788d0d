"""A UNet that is given no boxes and reads where things are from the caption: the ablation's arms without grounding.

No stage of the product. A small UNet's cross-attention draws hardly an object from a caption (recall 0.11 with the
true one), and arms that are judged through it would all look alike. Here a module reads what the boxes would have
said, as far as the caption tells it, and the UNet goes on from the grounded one's weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mgcc_ref.attention import Attention, FeedForward
from mgcc_ref.config import UNetConfig
from mgcc_ref.layout_map import LAYOUT_CHANNELS, PAINTED_CHANNELS
from mgcc_ref.unet import POSITION_CHANNELS, GroundedUNet, guide, position_channels

READ_WIDTH = 128

_WIDTH, _HEADS, _FEED_FORWARD = READ_WIDTH, 4, 256
_READER_LAYERS, _CELL_BLOCKS = 2, 2
_PAINTED_WEIGHT = 0.3


class CellBlock(nn.Module):
    """Cells ask the caption's tokens: cross-attention and feed-forward, both pre-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(_WIDTH)
        self.attention = Attention(_WIDTH, _WIDTH, _WIDTH, _HEADS)
        self.feed_forward_norm = nn.LayerNorm(_WIDTH)
        self.feed_forward = FeedForward(_WIDTH, _FEED_FORWARD)

    def forward(self, cells: Tensor, words: Tensor) -> Tensor:
        x = cells + self.attention(self.attention_norm(cells), words)
        return x + self.feed_forward(self.feed_forward_norm(x))


class CaptionMap(nn.Module):
    """Conditioning (B, N_c, D_c) -> what a layout map would hold: (B, LAYOUT_CHANNELS, h, w).

    A bidirectional encoder comes first: the text tower is trained by its last token alone, so that what a place's
    token says of the thing there is right 0.68 times by a linear map, and 0.99 times after two encoder layers.
    """

    mean: Tensor  # of the layout maps that it imitates, per channel: (LAYOUT_CHANNELS,)
    spread: Tensor

    def __init__(self, conditioning: int, tokens: int, latent_px: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(conditioning)
        self.word = nn.Linear(conditioning, _WIDTH)
        self.order = nn.Parameter(torch.randn(1, tokens, _WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(
            _WIDTH, _HEADS, 4 * _WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.reader = nn.TransformerEncoder(layer, _READER_LAYERS, enable_nested_tensor=False)
        self.register_buffer("where", position_channels(latent_px).flatten(2).mT.contiguous(), persistent=False)
        self.cell = nn.Linear(POSITION_CHANNELS, _WIDTH)
        self.blocks = nn.ModuleList(CellBlock() for _ in range(_CELL_BLOCKS))
        self.out = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, LAYOUT_CHANNELS))
        self.register_buffer("mean", torch.zeros(LAYOUT_CHANNELS))
        self.register_buffer("spread", torch.ones(LAYOUT_CHANNELS))
        self.latent_px = latent_px

    def fit(self, maps: Tensor) -> None:
        """Take mean and spread of each channel from layout maps (B, LAYOUT_CHANNELS, h, w)."""
        self.mean.copy_(maps.mean(dim=(0, 2, 3)))
        self.spread.copy_(maps.std(dim=(0, 2, 3)).clamp_min(1e-3))

    def error(self, painted: Tensor, wanted: Tensor) -> Tensor:
        """Mean squared error in spreads of each channel; 1 is what the mean alone would have.

        The painter's channels change with every fraction of a cell, of which a caption tells nothing: they count less.
        """
        error = ((painted - wanted) / self.spread.view(-1, 1, 1)).square().mean(dim=(0, 2, 3))
        return error[PAINTED_CHANNELS:].mean() + _PAINTED_WEIGHT * error[:PAINTED_CHANNELS].mean()

    def read(self, conditioning: Tensor) -> Tensor:
        """What the cells attend to: (B, N_c, D_c) -> (B, N_c, READ_WIDTH)."""
        return self.reader(self.word(self.norm(conditioning)) + self.order)

    def forward(self, conditioning: Tensor) -> Tensor:
        words = self.read(conditioning)
        cells = self.cell(self.where).expand(conditioning.shape[0], -1, -1)
        for block in self.blocks:
            cells = block(cells, words)
        painted = self.mean + self.spread * self.out(cells)
        return painted.mT.unflatten(2, (self.latent_px, self.latent_px))


class CaptionUNet(GroundedUNet):
    """The grounded UNet with the caption's map in the place of the boxes', which it is given and does not read."""

    def __init__(self, config: UNetConfig, conditioning: int, conditioning_tokens: int, phrase: int) -> None:
        super().__init__(config, conditioning, conditioning_tokens, phrase)
        self.caption_map = CaptionMap(conditioning, conditioning_tokens, config.latent_px)

    def denoise(
        self,
        latents: Tensor,
        timestep: Tensor,
        conditioning: Tensor,
        boxes: Tensor | None = None,
        box_mask: Tensor | None = None,
        phrase_embeddings: Tensor | None = None,
    ) -> Tensor:
        """As the grounded UNet's, for profiles with a layout map; boxes and phrases count for nothing."""
        return self.denoise_on(self.caption_map(conditioning), latents, timestep, conditioning)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        guidance: Tensor,
        conditioning: Tensor,
        boxes: Tensor,
        box_mask: Tensor,
        phrase_embeddings: Tensor,
    ) -> Tensor:
        """Guided prediction (1, C, h, w); the other branch reads the empty caption."""
        both = torch.cat([self.null_conditioning, conditioning])
        return guide(self.denoise(latents.expand(2, -1, -1, -1), timestep.expand(2), both), guidance)
