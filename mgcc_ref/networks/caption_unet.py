"""A UNet without boxes that takes positions from the caption: for the ablation's arms without grounding.

It is no stage of the product. A small UNet's cross-attention draws hardly an object from a caption (recall 0.11 with
the true caption), so arms that draw through it would all score alike. Here a module reads the caption's clauses, such
as "small cat top-left", and paints a layout map as coarse as the clauses are. The UNet starts from the grounded one's
weights and draws from that map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgcc_ref.config import UNetConfig
from mgcc_ref.networks.layout_map import LAYOUT_EMBEDDING, MAP_CHANNELS, PAINTED_CHANNELS
from mgcc_ref.networks.unet import GroundedUNet

KINDS = 27  # of clauses: nine places in three sizes
PLAIN_CHANNELS = MAP_CHANNELS - LAYOUT_EMBEDDING  # of a layout map; the last is the coverage

_WIDTH, _HEADS, _LAYERS = 128, 4, 2


@dataclass(frozen=True)
class CaptionReading:
    """Logits for each token of a caption."""

    thing: Tensor  # (B, N_c, labels + 1): the label whose clause ends here, or (last) none
    kind: Tensor  # (B, N_c, KINDS): that object's place and size


class CaptionMap(nn.Module):
    """Conditioning (B, N_c, D_c) -> the layout map that the caption describes: (B, LAYOUT_CHANNELS, h, w).

    A bidirectional encoder comes first. The text tower was trained through its last token alone: a linear map of a
    clause's last token finds its label in 0.68 of the cases, two encoder layers in 0.98. `kinds` holds the mean of the
    layout map's plain channels for each place and size. The painter's channels stay zero, since a caption gives no
    position to a fraction of a cell.
    """

    kinds: Tensor  # (KINDS, PLAIN_CHANNELS, h, w)
    things: Tensor  # (labels, LAYOUT_EMBEDDING)

    def __init__(self, conditioning: int, tokens: int, latent_px: int, labels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(conditioning)
        self.word = nn.Linear(conditioning, _WIDTH)
        self.order = nn.Parameter(torch.randn(1, tokens, _WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(
            _WIDTH, _HEADS, 4 * _WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
        self.thing = nn.Linear(_WIDTH, labels + 1)
        self.kind = nn.Linear(_WIDTH, KINDS)
        self.register_buffer("kinds", torch.zeros(KINDS, PLAIN_CHANNELS, latent_px, latent_px))
        self.register_buffer("things", torch.zeros(labels, LAYOUT_EMBEDDING))

    def read(self, conditioning: Tensor) -> CaptionReading:
        """Logits for the tokens of conditioning (B, N_c, D_c)."""
        read = self.encoder(self.word(self.norm(conditioning)) + self.order)
        return CaptionReading(self.thing(read), self.kind(read))

    def paint(self, reading: CaptionReading) -> Tensor:
        """The layout map (B, LAYOUT_CHANNELS, h, w) of a reading, weighted by its probabilities."""
        thing = reading.thing.softmax(dim=-1)[..., :-1]  # (B, N_c, labels)
        kind = reading.kind.softmax(dim=-1)  # (B, N_c, KINDS)
        plain = torch.einsum("btk,kchw->bchw", kind * thing.sum(dim=-1, keepdim=True), self.kinds)
        covered = torch.einsum("btk,khw->bthw", kind, self.kinds[:, -1])
        what = torch.einsum("bte,bthw->behw", thing @ self.things, covered)
        return F.pad(torch.cat([what, plain], dim=1), (0, 0, 0, 0, PAINTED_CHANNELS, 0))

    def forward(self, conditioning: Tensor) -> Tensor:
        return self.paint(self.read(conditioning))


class CaptionUNet(GroundedUNet):
    """The grounded UNet with the caption's map in place of the boxes' map. It ignores the boxes among its inputs."""

    def __init__(self, config: UNetConfig, conditioning: int, tokens: int, phrase: int, labels: int) -> None:
        super().__init__(config, conditioning, tokens, phrase)
        self.caption_map = CaptionMap(conditioning, tokens, config.latent_px, labels)

    def _layout(self, conditioning: Tensor, boxes: Tensor, box_mask: Tensor, phrase_embeddings: Tensor) -> Tensor:
        return self.caption_map(conditioning)

    def _no_layout(self, layout: Tensor) -> Tensor:
        return self.caption_map(self.null_conditioning)
