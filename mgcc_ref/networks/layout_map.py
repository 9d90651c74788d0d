"""The layout map: boxes and phrases painted at latent resolution for the UNet's input (`Grounding.LAYOUT_MAP`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgcc_ref.config import LayoutPainter
from mgcc_ref.networks.texture_painter import TexturePainter

LAYOUT_EMBEDDING = 16
PAINTED_CHANNELS = 48
MAP_CHANNELS = LAYOUT_EMBEDDING + 5  # and u, v, width, height, coverage
LAYOUT_CHANNELS = PAINTED_CHANNELS + MAP_CHANNELS

_PAINTER_WIDTH = 128
_OCTAVES = 4  # of the sines and cosines of a cell's position in the box: the finest period is a quarter of the box
_OUTSIDE = 0.3  # of the box's side: positions outside the box are clamped to this distance from its edge
_EDGE_GAIN = 6.0  # a cell that is covered by a sixth has full weight: its latent holds part of the object


class ObjectPainter(nn.Module):
    """A cell's position in a box, and the box's phrase -> channels that describe what to draw in that cell.

    An object's picture is a function of its phrase and of (u, v) in its box. So a small network over Fourier
    features of (u, v), modulated by the phrase (FiLM, arXiv 1709.07871), can represent it at any place and size; a
    convolution has to learn it anew for each offset to the latents' grid. The first layer is a sum over the cell's
    column and row, so only the later layers are computed for each cell.
    """

    def __init__(self, phrase: int) -> None:
        super().__init__()
        geometry = 1 + 2 * _OCTAVES + 2
        self.across = nn.Linear(geometry, _PAINTER_WIDTH)
        self.down = nn.Linear(geometry, _PAINTER_WIDTH)
        self.what = nn.Linear(phrase, 4 * _PAINTER_WIDTH)
        self.hidden = nn.Linear(_PAINTER_WIDTH, _PAINTER_WIDTH)
        self.out = nn.Linear(_PAINTER_WIDTH, PAINTED_CHANNELS)

    def forward(self, columns: _Axis, rows: _Axis, phrases: Tensor, coverage: Tensor) -> Tensor:
        """`phrases` (B, N, D_p) whitened, `coverage` (B, N, h, w) -> the channels' sum over objects (B, h, w, 48)."""
        across, down = self.across(columns.features()), self.down(rows.features())  # (B, N, cells, width)
        told = self.what(phrases)  # (B, N, 4 width)
        weight = (_EDGE_GAIN * coverage).clamp_max(1.0)
        if not self.training:
            where = across.unsqueeze(2) + down.unsqueeze(3)
            return (self._paint(where, told[:, :, None, None]) * weight.unsqueeze(-1)).sum(dim=1)
        # a box covers some thirty of the 256 cells: in training, the others would be most of the work
        b, n, y, x = coverage.detach().nonzero(as_tuple=True)
        painted = self._paint(across[b, n, x] + down[b, n, y], told[b, n]) * weight[b, n, y, x].unsqueeze(-1)
        batch, _, height, width = coverage.shape
        summed = painted.new_zeros(batch * height * width, PAINTED_CHANNELS)
        return summed.index_add(0, (b * height + y) * width + x, painted).view(batch, height, width, PAINTED_CHANNELS)

    def _paint(self, where: Tensor, told: Tensor) -> Tensor:
        scale_1, shift_1, scale_2, shift_2 = told.chunk(4, dim=-1)
        x = F.silu(where * (1 + scale_1) + shift_1)
        return self.out(F.silu(self.hidden(x) * (1 + scale_2) + shift_2))


@dataclass(frozen=True)
class _Axis:
    """Boxes along one axis of the picture."""

    covered: Tensor  # (B, N, cells): share of each cell
    inside: Tensor  # (B, N, cells): position of the cell's middle in the box, 0 to 1 inside it
    extent: Tensor  # (B, N): of the box

    def features(self) -> Tensor:
        """The painter's input for each cell: (B, N, cells, 1 + 2 octaves + 2)."""
        angles = [2.0**octave * math.pi * self.inside for octave in range(_OCTAVES)]
        extent = self.extent.unsqueeze(-1).expand_as(self.inside)
        return torch.stack(
            [self.inside, *(a.sin() for a in angles), *(a.cos() for a in angles), self.covered, extent], -1
        )


class LayoutMap(nn.Module):
    """Boxes and phrases as pictures at latent size: (B, N, 4), (B, N), (B, N, D_p) -> (B, LAYOUT_CHANNELS, h, w).

    The first channels are the painter's. The others are sums over objects, weighted by the exact share of each cell
    that the box covers: a learned 16-channel embedding of the phrase, the cell's position in the box (u, v), the
    box's width and height, and the share itself.
    """

    low: Tensor  # edges of the cells, (cells,)
    high: Tensor
    phrase_mean: Tensor
    phrase_axes: Tensor

    def __init__(self, phrase: int, latent_px: int, painter: LayoutPainter = LayoutPainter.FOURIER) -> None:
        super().__init__()
        self.embed = nn.Linear(phrase, LAYOUT_EMBEDDING)
        self.painter: ObjectPainter | TexturePainter = (
            TexturePainter(phrase, latent_px, PAINTED_CHANNELS)
            if painter is LayoutPainter.TEXTURES
            else ObjectPainter(phrase)
        )
        self.register_buffer("phrase_mean", torch.zeros(phrase))
        self.register_buffer("phrase_axes", torch.eye(phrase))
        edges = torch.arange(latent_px + 1, dtype=torch.float32) / latent_px
        self.register_buffer("low", edges[:-1], persistent=False)
        self.register_buffer("high", edges[1:], persistent=False)

    def whiten(self, phrases: Tensor) -> None:
        """Fit a fixed change of coordinates to a table of phrases (L, D_p): zero mean, equal variance on every axis.

        A small CLIP separates objects of one colour along directions a hundred times weaker than those of colour
        (cat, dog and lion at cosine 0.99). Without whitening, the UNet takes far longer to learn the difference.
        """
        centred = (phrases - phrases.mean(dim=0)).double()
        _, spread, axes = torch.linalg.svd(centred, full_matrices=False)
        kept = spread > 1e-3 * spread[0]
        scale = len(phrases) ** 0.5 / spread[kept]
        self.phrase_mean.copy_(phrases.mean(dim=0))
        self.phrase_axes.zero_()
        self.phrase_axes[:, : int(kept.sum())] = (axes[kept].T * scale).float()

    def whitened(self, phrases: Tensor) -> Tensor:
        """Phrase embeddings (..., D_p) in the coordinates fitted by `whiten`."""
        return (phrases - self.phrase_mean) @ self.phrase_axes

    def _axis(self, start: Tensor, end: Tensor) -> _Axis:
        """Boxes from `start` to `end` (B, N) along one axis."""
        low, high = start.unsqueeze(-1), end.unsqueeze(-1)
        covered = (torch.minimum(high, self.high) - torch.maximum(low, self.low)).clamp_min(0.0)
        middle = 0.5 * (self.low + self.high)
        inside = ((middle - low) / (high - low).clamp_min(1e-3)).clamp(-_OUTSIDE, 1.0 + _OUTSIDE)
        return _Axis(covered * self.low.shape[0], inside, end - start)

    def forward(self, boxes: Tensor, box_mask: Tensor, phrase_embeddings: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(-1)
        columns, rows = self._axis(x1, x2), self._axis(y1, y2)
        covered = rows.covered.unsqueeze(-1) * columns.covered.unsqueeze(-2) * box_mask[..., None, None]  # (B, N, h, w)
        phrases = self.whitened(phrase_embeddings)
        if isinstance(self.painter, TexturePainter):
            painted = self.painter(boxes, box_mask, phrases)
        else:
            painted = self.painter(columns, rows, phrases, covered)
        ones = torch.ones_like(covered)
        geometry = (
            columns.inside.clamp(0.0, 1.0).unsqueeze(-2),
            rows.inside.clamp(0.0, 1.0).unsqueeze(-1),
            columns.extent[..., None, None],
            rows.extent[..., None, None],
            ones,
        )
        plain = torch.stack([value * covered for value in geometry], dim=-1).sum(dim=1)  # (B, h, w, 5)
        what = (covered.flatten(2).transpose(1, 2) @ self.embed(phrases)).unflatten(1, covered.shape[2:])
        return torch.cat([painted, what, plain], dim=-1).permute(0, 3, 1, 2)
