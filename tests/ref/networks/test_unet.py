"""The layout map, guidance, and the autoencoders' decoder stage."""

from __future__ import annotations

import torch

from mgcc_ref.model import MgccModel
from mgcc_ref.networks.layout_map import LAYOUT_CHANNELS, LAYOUT_EMBEDDING, PAINTED_CHANNELS, LayoutMap
from mgcc_ref.networks.unet import position_channels
from mgcc_ref.pipeline import GroundedObject, ReferencePipeline


@torch.no_grad()
def test_layout_map_covers_exactly_the_cells_of_the_box() -> None:
    layout = LayoutMap(phrase=3, latent_px=8)
    boxes = torch.tensor([[[0.25, 0.5, 0.5625, 0.75], [0.0, 0.0, 1.0, 1.0]]])
    painted = layout(boxes, torch.tensor([[1.0, 0.0]]), torch.randn(1, 2, 3))
    assert painted.shape == (1, LAYOUT_CHANNELS, 8, 8)
    coverage = painted[0, -1]
    expected = torch.zeros(8, 8)
    expected[4:6, 2:4] = 1.0
    expected[4:6, 4] = 0.5  # the box ends half-way through this cell
    torch.testing.assert_close(coverage, expected)
    assert not painted[0, :, :4].any(), "the masked object paints nothing"
    u = painted[0, PAINTED_CHANNELS + LAYOUT_EMBEDDING]
    assert u[4, 2] < u[4, 3]


def test_the_painter_paints_the_same_while_it_learns() -> None:
    """Training computes covered cells alone, all others compute every cell."""
    layout = LayoutMap(phrase=3, latent_px=8)
    boxes = torch.tensor([[[0.2, 0.5, 0.55, 0.8], [0.5, 0.1, 0.9, 0.6]], [[0.0, 0.0, 0.3, 0.2], [0.1, 0.1, 0.4, 0.9]]])
    told = boxes, torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.randn(2, 2, 3)
    torch.testing.assert_close(layout.train()(*told), layout.eval()(*told))
    assert layout(*told)[0, 0].count_nonzero() < 64, "a cell that no box covers stays empty"


def test_position_channels_are_the_recipes() -> None:
    assert position_channels(16).shape == (1, 22, 16, 16)


@torch.no_grad()
def test_guidance_interpolates_between_the_two_branches(tiny: MgccModel) -> None:
    pipeline = ReferencePipeline(tiny)
    x, t = pipeline.initial_noise(0), torch.tensor([600.0])
    conditioning = tiny.encode_captions(["beach , small cat left"])
    where = pipeline.layout_of([GroundedObject("cat", (0.1, 0.3, 0.5, 0.8), 1.0)])
    inputs = (conditioning, where.boxes, where.box_mask, where.phrase_embeddings)

    def at(scale: float) -> torch.Tensor:
        return tiny.unet(x, t, torch.tensor([scale]), *inputs)

    torch.testing.assert_close(at(1.0), tiny.unet.denoise(x, t, *inputs), atol=1e-5, rtol=1e-5)
    unconditional = tiny.unet.denoise(
        x, t, tiny.unet.null_conditioning, where.boxes, torch.zeros_like(where.box_mask), where.phrase_embeddings
    )
    torch.testing.assert_close(at(0.0), unconditional, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(at(3.0), at(0.0) + 3 * (at(1.0) - at(0.0)), atol=1e-4, rtol=1e-4)
    assert (at(1.0) - at(0.0)).abs().max() > 1e-4, "boxes and caption must act"


@torch.no_grad()
def test_kl_decoder_undoes_the_scaling(gated: MgccModel) -> None:
    latents = ReferencePipeline(gated).initial_noise(0)
    expected = gated.autoencoder.decode(latents / gated.profile.vae.scaling_factor).sample
    torch.testing.assert_close(gated.vae_decoder(latents), expected)


@torch.no_grad()
def test_whitening_makes_phrases_of_one_direction_distinct() -> None:
    table = torch.randn(6, 12) * torch.logspace(0, -2, 12)  # a few strong directions, the rest weak
    table[1] = table[0] + 0.01 * torch.randn(12)
    layout = LayoutMap(phrase=12, latent_px=8)
    before = torch.cosine_similarity(table[0], table[1], dim=0)
    layout.whiten(table)
    white = (table - layout.phrase_mean) @ layout.phrase_axes
    assert before > 0.99
    assert torch.cosine_similarity(white[0], white[1], dim=0) < 0.5
    torch.testing.assert_close(white.square().mean(dim=0)[:5], torch.ones(5), atol=1e-3, rtol=1e-3)
