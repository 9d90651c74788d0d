"""The layout map's painter with a learned texture for each phrase, resampled into the boxes.

`ObjectPainter` describes a cell of 8x8 pixels by a smooth function of the cell's position in the box, which blurs
details finer than a cell. Here a phrase is mapped to an RGBA texture, the texture is resampled into the box at
the picture's own resolution, later objects cover earlier ones, and a small encoder reduces the canvas to the latents'
resolution. Textures alone, fitted to 6,000 scenes in 500 steps, reproduce whole pictures at 35.6 dB; the profile
story's autoencoder reaches 31.5 dB.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CELL_PX = 8  # pixels of the picture for each cell of the latents, along each axis
TEXTURE_PX = 48
CANVAS_CHANNELS = 4  # red, green, blue times alpha; alpha
_THINNEST_BOX = 1e-3  # of the picture's side; avoids a division by zero for a box without extent


class TexturePainter(nn.Module):
    """Boxes (B, N, 4), box_mask (B, N), whitened phrases (B, N, D_p) -> (B, h, w, channels).

    The encoder has no biases, so a map without objects is zero, as the unconditional branch of guidance assumes.
    """

    pixels: Tensor  # left edges of the picture's pixels, (H,)
    texels: Tensor  # middles of the texture's, (TEXTURE_PX,)

    def __init__(self, phrase: int, latent_px: int, channels: int) -> None:
        super().__init__()
        self.image_px = CELL_PX * latent_px
        self.texture = nn.Linear(phrase, CANVAS_CHANNELS * TEXTURE_PX**2)
        nn.init.normal_(self.texture.weight, 0.0, 1e-3)
        nn.init.zeros_(self.texture.bias)
        self.encode = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * CANVAS_CHANNELS, 32, 3, padding=1, bias=False),
            nn.SiLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1, bias=False),
            nn.SiLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1, bias=False),
            nn.SiLU(),
            nn.Conv2d(64, channels, 3, padding=1, bias=False),
        )
        self.register_buffer("pixels", torch.arange(self.image_px) / self.image_px, persistent=False)
        self.register_buffer("texels", (torch.arange(TEXTURE_PX) + 0.5) / TEXTURE_PX, persistent=False)

    def forward(self, boxes: Tensor, box_mask: Tensor, phrases: Tensor) -> Tensor:
        """The encoded canvas: (B, h, w, channels)."""
        encoded: Tensor = self.encode(self.canvas(boxes, box_mask, phrases))
        return encoded.permute(0, 2, 3, 1)

    def canvas(self, boxes: Tensor, box_mask: Tensor, phrases: Tensor) -> Tensor:
        """All objects on a transparent ground, the last one on top: (B, 4, H, W), colours premultiplied by alpha."""
        x1, y1, x2, y2 = boxes.unbind(-1)
        textures = self.texture(phrases).unflatten(-1, (CANVAS_CHANNELS, TEXTURE_PX, TEXTURE_PX))
        textures = textures * box_mask[..., None, None, None]
        rows = self._resampling(y1, y2).unsqueeze(2) @ textures  # (B, N, 4, H, TEXTURE_PX)
        objects = rows @ self._resampling(x1, x2).unsqueeze(2).transpose(-1, -2)  # (B, N, 4, H, W)
        canvas = torch.zeros_like(objects[:, 0])
        for drawn in objects.unbind(dim=1):
            alpha = drawn[:, 3:].clamp(0.0, 1.0)
            canvas = canvas * (1 - alpha) + torch.cat([drawn[:, :3], alpha], dim=1)
        return canvas

    def _resampling(self, start: Tensor, end: Tensor) -> Tensor:
        """The weight of each texel in each pixel along one axis: (B, N) -> (B, N, H, TEXTURE_PX).

        A tent filter as wide as the coarser of the two grids, so that a small box averages texels instead of skipping
        them, times the share of the pixel that the box covers.
        """
        start, end = start.unsqueeze(-1), end.unsqueeze(-1)
        extent = (end - start).clamp_min(_THINNEST_BOX)
        pixel = 1.0 / self.image_px
        covered = torch.minimum(end, self.pixels + pixel) - torch.maximum(start, self.pixels)
        inside = (self.pixels + 0.5 * pixel - start) / extent
        width = (pixel / extent).clamp_min(1.0 / TEXTURE_PX).unsqueeze(-1)
        tent = (1 - (inside.unsqueeze(-1) - self.texels).abs() / width).clamp_min(0.0)
        tent = tent / tent.sum(dim=-1, keepdim=True).clamp_min(1e-4)
        return tent * (covered * self.image_px).clamp_min(0.0).unsqueeze(-1)
