"""The painter of learned textures, held against Pillow's resampling and alpha blending."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mgcc_ref.config import LayoutPainter
from mgcc_ref.networks.layout_map import LAYOUT_CHANNELS, LayoutMap
from mgcc_ref.networks.texture_painter import TEXTURE_PX, TexturePainter

LATENT_PX = 16
IMAGE_PX = 8 * LATENT_PX
PHRASES = torch.eye(2).unsqueeze(0)  # two objects, of the first phrase and of the second
BOTH = torch.ones(1, 2)


def smooth_art(seed: int) -> torch.Tensor:
    """A soft RGBA picture, premultiplied, opaque in the middle: (4, TEXTURE_PX, TEXTURE_PX)."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    large = Image.fromarray(colours).resize((TEXTURE_PX, TEXTURE_PX), Image.Resampling.BICUBIC)
    y, x = np.mgrid[0:TEXTURE_PX, 0:TEXTURE_PX] / (TEXTURE_PX - 1) - 0.5
    alpha = np.clip(3 - 6 * np.hypot(x, y), 0, 1)[..., None]
    art = np.concatenate([np.asarray(large) / 255 * alpha, alpha], axis=-1)
    return torch.from_numpy(art.astype(np.float32)).permute(2, 0, 1)


@pytest.fixture
def painter() -> TexturePainter:
    made = TexturePainter(phrase=2, latent_px=LATENT_PX, channels=5).eval().requires_grad_(False)
    made.texture.weight.copy_(torch.stack([smooth_art(0).flatten(), smooth_art(1).flatten()], dim=1))
    return made


def box_of(left: int, top: int, width: int, height: int) -> list[float]:
    return [left / IMAGE_PX, top / IMAGE_PX, (left + width) / IMAGE_PX, (top + height) / IMAGE_PX]


@pytest.mark.parametrize(("width", "height"), [(48, 48), (28, 36), (60, 50), (96, 96)])
def test_a_texture_is_resampled_as_pillow_does_it(painter: TexturePainter, width: int, height: int) -> None:
    boxes = torch.tensor([[box_of(20, 12, width, height), [0.0] * 4]])
    canvas = painter.canvas(boxes, torch.tensor([[1.0, 0.0]]), PHRASES)[0]
    for channel, art in zip(canvas, smooth_art(0), strict=True):
        expected = Image.fromarray(art.numpy()).resize((width, height), Image.Resampling.BILINEAR)
        found = channel[12 : 12 + height, 20 : 20 + width]
        torch.testing.assert_close(found, torch.from_numpy(np.asarray(expected).copy()), atol=0.02, rtol=0)
    outside = canvas.clone()
    outside[:, 12 : 12 + height, 20 : 20 + width] = 0
    assert not outside.any(), "nothing is painted beside the box"
    shifted = canvas[:, 13 : 13 + height, 20 : 20 + width]
    assert (shifted - canvas[:, 12 : 12 + height, 20 : 20 + width]).abs().max() > 0.02, "one pixel off would show"


def test_the_last_object_covers_the_others(painter: TexturePainter) -> None:
    boxes = torch.tensor([[box_of(30, 30, 48, 48), box_of(40, 40, 48, 48)]])
    below, above = (painter.canvas(boxes, mask, PHRASES)[0] for mask in torch.eye(2).unsqueeze(1))
    expected = below * (1 - above[3:]) + above
    torch.testing.assert_close(painter.canvas(boxes, BOTH, PHRASES)[0], expected, atol=1e-6, rtol=0)
    assert (expected - (below + above)).abs().max() > 0.5, "a sum of both would differ"


def test_a_box_between_pixels_covers_the_edge_in_part(painter: TexturePainter) -> None:
    painter.texture.weight.zero_()
    painter.texture.bias.fill_(1.0)
    boxes = torch.tensor([[box_of(16, 16, 48, 48), [0.0] * 4]]) + 0.25 / IMAGE_PX
    alpha = painter.canvas(boxes, torch.tensor([[1.0, 0.0]]), PHRASES)[0, 3]
    assert alpha[20, 16] == pytest.approx(0.75, abs=1e-3)
    assert alpha[20, 64] == pytest.approx(0.25, abs=1e-3)
    assert alpha[20, 40] == pytest.approx(1.0, abs=1e-3)


def test_a_map_without_objects_is_zero() -> None:
    """Guidance's other branch takes it for granted (`GroundedUNet._no_layout`)."""
    layout = LayoutMap(phrase=2, latent_px=LATENT_PX, painter=LayoutPainter.TEXTURES)
    boxes = torch.tensor([[box_of(16, 16, 48, 48), box_of(60, 60, 30, 40)]])
    assert layout(boxes, BOTH, PHRASES).shape == (1, LAYOUT_CHANNELS, LATENT_PX, LATENT_PX)
    assert layout(boxes, BOTH, PHRASES).any()
    assert not layout(boxes, torch.zeros(1, 2), PHRASES).any()
