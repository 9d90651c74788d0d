"""The grounded UNet: `diffusers`' UNet2DConditionModel, conditioned on boxes in one of two ways.

`layout_map` paints what stands where into extra input channels; `gligen` uses the gated self-attention of
GLIGEN (arXiv 2301.07093, eq. 5 to 8). The inputs are the same, so nothing downstream knows which it is.
"""

from __future__ import annotations

import math

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from mgcc_ref.config import Grounding, UNetConfig

POSITION_FREQUENCIES = 5
POSITION_CHANNELS = 2 + 4 * POSITION_FREQUENCIES
LAYOUT_EMBEDDING = 16
LAYOUT_CHANNELS = LAYOUT_EMBEDDING + 5  # and u, v, width, height, coverage


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


class LayoutMap(nn.Module):
    """Boxes and phrases as pictures at latent size: (B, N, 4), (B, N), (B, N, D_p) -> (B, 21, h, w).

    Each object adds its learned 16-channel embedding times the exact share of every cell that its box covers,
    and, likewise weighted, where inside the box the cell lies (u, v), the box's size, and the coverage itself.
    """

    low: Tensor  # edges of the cells, (cells,)
    high: Tensor
    phrase_mean: Tensor
    phrase_axes: Tensor

    def __init__(self, phrase: int, latent_px: int) -> None:
        super().__init__()
        self.embed = nn.Linear(phrase, LAYOUT_EMBEDDING)
        self.register_buffer("phrase_mean", torch.zeros(phrase))
        self.register_buffer("phrase_axes", torch.eye(phrase))
        edges = torch.arange(latent_px + 1, dtype=torch.float32) / latent_px
        self.register_buffer("low", edges[:-1], persistent=False)
        self.register_buffer("high", edges[1:], persistent=False)

    def whiten(self, phrases: Tensor) -> None:
        """Fit the fixed change of coordinates to a table of phrases (L, D_p): zero mean, equal spread on every axis.

        A small CLIP tells things of one colour apart in directions a hundred times weaker than those of colour
        (cat, dog and lion at cosine 0.99); without this, the UNet takes as much longer to see the difference.
        """
        centred = (phrases - phrases.mean(dim=0)).double()
        _, spread, axes = torch.linalg.svd(centred, full_matrices=False)
        kept = spread > 1e-3 * spread[0]
        scale = len(phrases) ** 0.5 / spread[kept]
        self.phrase_mean.copy_(phrases.mean(dim=0))
        self.phrase_axes.zero_()
        self.phrase_axes[:, : int(kept.sum())] = (axes[kept].T * scale).float()

    def _axis(self, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """For one axis: share of each cell covered, and the cell's place inside the box; both (B, N, cells)."""
        start, end = start.unsqueeze(-1), end.unsqueeze(-1)
        covered = (torch.minimum(end, self.high) - torch.maximum(start, self.low)).clamp_min(0.0)
        middle = 0.5 * (self.low + self.high)
        inside = ((middle - start) / (end - start).clamp_min(1e-3)).clamp(0.0, 1.0)
        return covered * self.low.shape[0], inside

    def forward(self, boxes: Tensor, box_mask: Tensor, phrase_embeddings: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(-1)
        cover_x, u = self._axis(x1, x2)
        cover_y, v = self._axis(y1, y2)
        coverage = cover_y.unsqueeze(-1) * cover_x.unsqueeze(-2) * box_mask[..., None, None]  # (B, N, h, w)
        ones = torch.ones_like(coverage)
        geometry = torch.stack(
            [
                u.unsqueeze(-2) * ones,
                v.unsqueeze(-1) * ones,
                (x2 - x1)[..., None, None] * ones,
                (y2 - y1)[..., None, None] * ones,
                ones,
            ],
            dim=2,
        )  # (B, N, 5, h, w)
        phrases = (phrase_embeddings - self.phrase_mean) @ self.phrase_axes
        what = self.embed(phrases)[..., None, None] * ones.unsqueeze(2)  # (B, N, 16, h, w)
        return (torch.cat([what, geometry], dim=2) * coverage.unsqueeze(2)).sum(dim=1)


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

    `null_conditioning` (1, N_c, D_c) is the text encoder's output for the empty caption: the other branch of
    classifier-free guidance, which also sees no boxes.
    """

    null_conditioning: Tensor
    positions: Tensor

    def __init__(self, config: UNetConfig, conditioning: int, conditioning_tokens: int, phrase: int) -> None:
        super().__init__()
        self.grounding = config.grounding
        self.unet: nn.Module = build_unet(config, conditioning)
        self.register_buffer("null_conditioning", torch.zeros(1, conditioning_tokens, conditioning))
        if config.grounding is Grounding.LAYOUT_MAP:
            self.layout_map = LayoutMap(phrase, config.latent_px)
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
        """The network's prediction without guidance, for any batch. No boxes: gates off (GLIGEN only)."""
        if self.grounding is Grounding.GLIGEN:
            gligen = None
            if boxes is not None:
                gligen = {"gligen": {"boxes": boxes, "positive_embeddings": phrase_embeddings, "masks": box_mask}}
            return self.unet(latents, timestep, conditioning, cross_attention_kwargs=gligen, return_dict=False)[0]
        assert boxes is not None and box_mask is not None and phrase_embeddings is not None
        layout = self.layout_map(boxes, box_mask, phrase_embeddings)
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
        both = self.denoise(
            latents.expand(2, -1, -1, -1),
            timestep.expand(2),
            torch.cat([self.null_conditioning, conditioning]),
            boxes.expand(2, -1, -1),
            torch.cat([torch.zeros_like(box_mask), box_mask]),
            phrase_embeddings.expand(2, -1, -1),
        )
        return guide(both, guidance)


class PlainUNet(nn.Module):
    """Stage `unet_plain`: the same weights with GLIGEN's gates off, for the steps after the first tau."""

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
    """Stage `unet` of a distilled profile: guidance is in the weights, so one branch does."""

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


def guide(both: Tensor, guidance: Tensor) -> Tensor:
    """Classifier-free guidance: both (2, C, h, w), the unconditional prediction first -> (1, C, h, w)."""
    without, with_condition = both.chunk(2)
    return without + guidance * (with_condition - without)
