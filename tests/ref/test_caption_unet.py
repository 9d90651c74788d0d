"""The UNet without boxes: it reads the caption, and nothing of the boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mgcc_ref.caption_unet import CaptionMap, CaptionUNet
from mgcc_ref.config import get_profile
from mgcc_ref.layout_map import LAYOUT_CHANNELS, PAINTED_CHANNELS
from mgcc_ref.model import load_model
from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.story.scene import random_scene
from mgcc_ref.story.sprites import LABELS
from mgcc_ref.train.caption_map import thing_ends
from mgcc_ref.unet import GroundedUNet


@pytest.fixture(scope="module")
def unets() -> tuple[GroundedUNet, CaptionUNet]:
    """The tiny profile's grounded UNet, and one without boxes on its weights."""
    model = load_model("tiny")
    clip = model.profile.clip
    torch.manual_seed(0)
    unet = CaptionUNet(model.profile.unet, clip.text_hidden, clip.text_positions, clip.text_hidden)
    unet.load_state_dict(model.unet.state_dict(), strict=False)
    return model.unet, unet.eval()


@pytest.fixture
def inputs(unets: tuple[GroundedUNet, CaptionUNet]) -> dict[str, torch.Tensor]:
    profile, generator = get_profile("tiny"), torch.Generator().manual_seed(1)
    corners = torch.rand((1, 4, 2, 2), generator=generator).sort(dim=-2).values.flatten(-2)
    clip, side = profile.clip, profile.unet.latent_px
    return {
        "latents": torch.randn((1, profile.unet.latent_channels, side, side), generator=generator),
        "timestep": torch.tensor([417.0]),
        "conditioning": torch.randn((1, clip.text_positions, clip.text_hidden), generator=generator),
        "boxes": corners,
        "box_mask": torch.ones(1, 4),
        "phrase_embeddings": torch.randn((1, 4, clip.text_hidden), generator=generator),
    }


def test_boxes_count_for_nothing_and_the_caption_for_the_map(
    unets: tuple[GroundedUNet, CaptionUNet], inputs: dict[str, torch.Tensor]
) -> None:
    grounded, unet = unets
    without = {**inputs, "box_mask": torch.zeros(1, 4)}
    assert torch.equal(unet.denoise(**inputs), unet.denoise(**without))
    assert not torch.equal(grounded.denoise(**inputs), grounded.denoise(**without))  # the boxes do say something
    # the caption's map is what the UNet is given: in its place, the grounded UNet predicts the same
    told = unet.caption_map(inputs["conditioning"])
    same = grounded.denoise_on(told, inputs["latents"], inputs["timestep"], inputs["conditioning"])
    torch.testing.assert_close(unet.denoise(**inputs), same)


def test_guidance_leads_away_from_the_empty_caption(
    unets: tuple[GroundedUNet, CaptionUNet], inputs: dict[str, torch.Tensor]
) -> None:
    _, unet = unets
    empty = {**inputs, "conditioning": unet.null_conditioning}
    for guidance, expected in ((1.0, unet.denoise(**inputs)), (0.0, unet.denoise(**empty))):
        torch.testing.assert_close(unet(**inputs, guidance=torch.tensor([guidance])), expected, rtol=1e-4, atol=1e-5)


def test_the_maps_error_is_one_at_the_mean_and_weighs_the_painter_less() -> None:
    generator = torch.Generator().manual_seed(2)
    caption_map = CaptionMap(16, 8, 4)
    wanted = torch.randn((500, LAYOUT_CHANNELS, 4, 4), generator=generator) * 3 + 5
    caption_map.fit(wanted)
    mean = caption_map.mean.view(-1, 1, 1).expand_as(wanted)
    assert float(caption_map.error(mean, wanted)) == pytest.approx(1.3, rel=1e-3)
    assert float(caption_map.error(wanted, wanted)) == 0
    painted, plain = wanted.clone(), wanted.clone()
    painted[:, :PAINTED_CHANNELS] = mean[:, :PAINTED_CHANNELS]
    plain[:, PAINTED_CHANNELS:] = mean[:, PAINTED_CHANNELS:]
    assert float(caption_map.error(painted, wanted)) < 0.5 * float(caption_map.error(plain, wanted))


def test_things_end_where_their_place_is_said() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scene = random_scene(rng)
        caption = canonical_caption(scene, rng)
        words = ["<begin>", *caption.split()]
        found = thing_ends(caption)
        assert sorted(found.values()) == sorted(LABELS.index(item.label) for item in scene.objects)
        for end, label in found.items():
            assert " ".join(words[:end]).endswith(LABELS[label])
