"""The grounded UNet: `diffusers`' UNet2DConditionModel, conditioned on boxes in one of two ways.

`layout_map` paints boxes and phrases into extra input channels; `gligen` uses the gated self-attention of
GLIGEN (arXiv 2301.07093, eq. 5 to 8). Both have the same inputs, so callers need not distinguish them.
"""

from __future__ import annotations

import math

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from mgcc_ref.config import Grounding, UNetConfig
from mgcc_ref.networks.layout_map import LAYOUT_CHANNELS, LayoutMap

POSITION_FREQUENCIES = 5
POSITION_CHANNELS = 2 + 4 * POSITION_FREQUENCIES


def build_unet(config: UNetConfig, conditioning: int) -> UNet2DConditionModel:
    """The bare diffusers UNet of the profile's size, with fresh weights."""
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention_blocks]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention_blocks)]
    gated = config.grounding is Grounding.GLIGEN
    extra = 0 if gated else POSITION_CHANNELS + LAYOUT_CHANNELS
    return UNet2DConditionModel(
        sample_size=config.latent_px,
        in_channels=config.latent_channels + extra,
        out_channels=config.latent_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=config.block_channels,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=conditioning,
        attention_head_dim=config.heads,  # diffusers' name; it is the number of heads
        norm_num_groups=config.norm_groups,
        attention_type="gated" if gated else "default",
    )


def open_gates(unet: nn.Module, seed: int = 0) -> None:
    """Open the gates of a GLIGEN UNet with fresh weights; without gates, do nothing.

    Fresh gates are shut, as at the start of training, so boxes and phrases have no effect. Seeded random values stand
    for trained gates.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name.endswith(("alpha_attn", "alpha_dense")):
                parameter.copy_(torch.rand((), generator=generator) + 0.3)


def position_channels(size: int) -> Tensor:
    """Fixed (1, 22, size, size) map of x, y and their sines and cosines at five octaves."""
    axis = torch.linspace(-1.0, 1.0, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    channels = [x, y]
    for octave in range(POSITION_FREQUENCIES):
        for value in (x, y):
            channels += [torch.sin(2.0**octave * math.pi * value), torch.cos(2.0**octave * math.pi * value)]
    return torch.stack(channels).unsqueeze(0)


class GroundedUNet(nn.Module):
    """Stages `unet` and `unet_plain`: one guided denoising step.

    `null_conditioning` (1, N_c, D_c) is the text encoder's output for the empty caption: it conditions the
    unconditional branch of classifier-free guidance, which also has no boxes.
    """

    null_conditioning: Tensor
    positions: Tensor

    def __init__(self, config: UNetConfig, conditioning: int, conditioning_tokens: int, phrase: int) -> None:
        super().__init__()
        self.grounding, self.latent_channels = config.grounding, config.latent_channels
        self.unet: nn.Module = build_unet(config, conditioning)
        self.register_buffer("null_conditioning", torch.zeros(1, conditioning_tokens, conditioning))
        if config.grounding is Grounding.LAYOUT_MAP:
            self.layout_map = LayoutMap(phrase, config.latent_px, config.painter)
            self.register_buffer("positions", position_channels(config.latent_px), persistent=False)

    def denoise(
        self,
        latents: Tensor,
        timestep: Tensor,
        conditioning: Tensor,
        boxes: Tensor | None = None,
        box_mask: Tensor | None = None,
        phrase_embeddings: Tensor | None = None,
    ) -> Tensor:
        """The network's prediction (B, C, h, w) without guidance. Without boxes, gates are off (GLIGEN only)."""
        if self.grounding is Grounding.GLIGEN:
            gligen = None
            if boxes is not None:
                gligen = {"gligen": {"boxes": boxes, "positive_embeddings": phrase_embeddings, "masks": box_mask}}
            return self.unet(latents, timestep, conditioning, cross_attention_kwargs=gligen, return_dict=False)[0]
        assert boxes is not None and box_mask is not None and phrase_embeddings is not None
        layout = self._layout(conditioning, boxes, box_mask, phrase_embeddings)
        return self.denoise_on(layout, latents, timestep, conditioning)

    def _layout(self, conditioning: Tensor, boxes: Tensor, box_mask: Tensor, phrase_embeddings: Tensor) -> Tensor:
        """The layout map (B, LAYOUT_CHANNELS, h, w), for profiles with one."""
        return self.layout_map(boxes, box_mask, phrase_embeddings)

    def _no_layout(self, layout: Tensor) -> Tensor:
        """The unconditional branch's layout map: a map without objects is zero."""
        return torch.zeros_like(layout)

    def denoise_on(self, layout: Tensor, latents: Tensor, timestep: Tensor, conditioning: Tensor) -> Tensor:
        """`denoise` on a computed layout map (B, LAYOUT_CHANNELS, h, w). Not for GLIGEN."""
        positions = self.positions.expand(latents.shape[0], -1, -1, -1)
        return self.unet(torch.cat([latents, positions, layout], 1), timestep, conditioning, return_dict=False)[0]

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
        """Guided prediction (1, C, h, w): unconditional + guidance x (conditional - unconditional)."""
        latents, timestep = latents.expand(2, -1, -1, -1), timestep.expand(2)
        both = torch.cat([self.null_conditioning, conditioning])
        if self.grounding is Grounding.LAYOUT_MAP:
            layout = self._layout(conditioning, boxes, box_mask, phrase_embeddings)
            layouts = torch.cat([self._no_layout(layout), layout])
            return guide(self.denoise_on(layouts, latents, timestep, both), guidance)
        mask = torch.cat([torch.zeros_like(box_mask), box_mask])
        where = (boxes.expand(2, -1, -1), mask, phrase_embeddings.expand(2, -1, -1))
        return guide(self.denoise(latents, timestep, both, *where), guidance)


class PlainUNet(nn.Module):
    """Stage `unet_plain`: the same weights with GLIGEN's gates off, for the steps after the share tau."""

    def __init__(self, grounded: GroundedUNet) -> None:
        super().__init__()
        self.grounded = grounded

    def forward(self, latents: Tensor, timestep: Tensor, guidance: Tensor, conditioning: Tensor) -> Tensor:
        both = self.grounded.denoise(
            latents.expand(2, -1, -1, -1),
            timestep.expand(2),
            torch.cat([self.grounded.null_conditioning, conditioning]),
        )
        return guide(both, guidance)


class StudentUNet(nn.Module):
    """Stage `unet` of a distilled profile: guidance is in the weights, so it runs the conditional branch alone."""

    def __init__(self, grounded: GroundedUNet) -> None:
        super().__init__()
        self.grounded = grounded

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        conditioning: Tensor,
        boxes: Tensor,
        box_mask: Tensor,
        phrase_embeddings: Tensor,
    ) -> Tensor:
        return self.grounded.denoise(latents, timestep, conditioning, boxes, box_mask, phrase_embeddings)


class PlainStudentUNet(PlainUNet):
    """Stage `unet_plain` of a distilled profile with gates: the conditional branch alone, gates off."""

    def forward(self, latents: Tensor, timestep: Tensor, conditioning: Tensor) -> Tensor:  # type: ignore[override]
        return self.grounded.denoise(latents, timestep, conditioning)


def guide(both: Tensor, guidance: Tensor) -> Tensor:
    """Classifier-free guidance: both (2, C, h, w), the unconditional prediction first -> (1, C, h, w)."""
    without, with_condition = both.chunk(2)
    return without + guidance * (with_condition - without)
