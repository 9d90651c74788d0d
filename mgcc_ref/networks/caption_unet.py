"""A UNet that is given no boxes and reads where things are from the caption: the ablation's arms without grounding.

No stage of the product. A small UNet's cross-attention draws hardly an object from a caption (recall 0.11 with the
true one), and arms that are judged through it would all look alike. Here a module reads the caption's clauses, such as
"small cat top-left", and paints what they say as blurred as they say it; the UNet goes on from the grounded one's
weights and draws from that.
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
PLAIN_CHANNELS = MAP_CHANNELS - LAYOUT_EMBEDDING  # of a layout map, the last of which is the coverage

_WIDTH, _HEADS, _LAYERS = 128, 4, 2


@dataclass(frozen=True)
class CaptionReading:
    """What every token is taken for: logits."""

    thing: Tensor  # (B, N_c, labels + 1): the thing whose clause ends here, or (last) none
    kind: Tensor  # (B, N_c, KINDS): that thing's place and size


class CaptionMap(nn.Module):
    """Conditioning (B, N_c, D_c) -> a layout map of what the caption says: (B, LAYOUT_CHANNELS, h, w).

    A bidirectional encoder comes first: the text tower is trained by its last token alone, so that which thing a
    clause names is told right 0.68 times by a linear map of its last token, and 0.98 times after two encoder layers.
    `kinds` holds, of each place and size, the mean of the layout map's plain channels; the painter's stay empty, since
    a caption does not tell to a fraction of a cell where a thing stands.
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
        """What the tokens say."""
        read = self.encoder(self.word(self.norm(conditioning)) + self.order)
        return CaptionReading(self.thing(read), self.kind(read))

    def paint(self, reading: CaptionReading) -> Tensor:
        """The map of a reading, by its probabilities."""
        thing = reading.thing.softmax(dim=-1)[..., :-1]  # (B, N_c, labels)
        kind = reading.kind.softmax(dim=-1)  # (B, N_c, KINDS)
        plain = torch.einsum("btk,kchw->bchw", kind * thing.sum(dim=-1, keepdim=True), self.kinds)
        covered = torch.einsum("btk,khw->bthw", kind, self.kinds[:, -1])
        what = torch.einsum("bte,bthw->behw", thing @ self.things, covered)
        return F.pad(torch.cat([what, plain], dim=1), (0, 0, 0, 0, PAINTED_CHANNELS, 0))

    def forward(self, conditioning: Tensor) -> Tensor:
        return self.paint(self.read(conditioning))


class CaptionUNet(GroundedUNet):
    """The grounded UNet with the caption's map in the place of the boxes', which it is given and does not read."""

    def __init__(self, config: UNetConfig, conditioning: int, tokens: int, phrase: int, labels: int) -> None:
        super().__init__(config, conditioning, tokens, phrase)
        self.caption_map = CaptionMap(conditioning, tokens, config.latent_px, labels)

    def _layout(self, conditioning: Tensor, boxes: Tensor, box_mask: Tensor, phrase_embeddings: Tensor) -> Tensor:
        return self.caption_map(conditioning)

    def _no_layout(self, layout: Tensor) -> Tensor:
        return self.caption_map(self.null_conditioning)
