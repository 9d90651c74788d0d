"""The UNet without boxes: it reads the caption, and nothing of the boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mgcc_ref.config import get_profile
from mgcc_ref.model import load_model
from mgcc_ref.networks.caption_unet import KINDS, PLAIN_CHANNELS, CaptionReading, CaptionUNet
from mgcc_ref.networks.layout_map import LAYOUT_CHANNELS, LAYOUT_EMBEDDING, PAINTED_CHANNELS
from mgcc_ref.networks.unet import GroundedUNet
from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.story.world.layout_words import PLACES, place_of
from mgcc_ref.story.world.scene import Size, random_scene
from mgcc_ref.story.world.sprites import LABELS
from mgcc_ref.train.caption_map import Blur, clauses, kind_of, tell_looks
from mgcc_ref.train.painter import ScenePainter


@pytest.fixture(scope="module")
def unets() -> tuple[GroundedUNet, CaptionUNet]:
    """The tiny profile's grounded UNet, and one without boxes on its weights."""
    model = load_model("tiny")
    clip, labels = model.profile.clip, len(model.labels)
    torch.manual_seed(0)
    unet = CaptionUNet(model.profile.unet, clip.text_hidden, clip.text_positions, clip.text_hidden, labels)
    unet.load_state_dict(model.unet.state_dict(), strict=False)
    unet.caption_map.kinds.uniform_()
    unet.caption_map.things.normal_()
    return model.unet, unet.eval()


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
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
    assert not torch.equal(told, unet.caption_map(inputs["conditioning"] * 1.5))


def test_guidance_leads_away_from_the_empty_caption(
    unets: tuple[GroundedUNet, CaptionUNet], inputs: dict[str, torch.Tensor]
) -> None:
    _, unet = unets
    empty = {**inputs, "conditioning": unet.null_conditioning}
    for guidance, expected in ((1.0, unet.denoise(**inputs)), (0.0, unet.denoise(**empty))):
        torch.testing.assert_close(unet(**inputs, guidance=torch.tensor([guidance])), expected, rtol=1e-4, atol=1e-5)


def test_a_sure_reading_paints_the_things_where_they_are_said_to_be(unets: tuple[GroundedUNet, CaptionUNet]) -> None:
    _, unet = unets
    caption_map = unet.caption_map
    thing, kind = torch.zeros(1, 6, len(LABELS) + 1), torch.zeros(1, 6, KINDS)
    thing[..., -1] = 50.0  # no thing, but for two
    for token, (label, where) in {2: (3, 4), 5: (7, 20)}.items():
        thing[0, token, -1], thing[0, token, label], kind[0, token, where] = 0.0, 50.0, 50.0
    told = caption_map.paint(CaptionReading(thing, kind))[0]
    assert told.shape[0] == LAYOUT_CHANNELS
    assert not told[:PAINTED_CHANNELS].any()
    looks = caption_map.kinds
    torch.testing.assert_close(told[-PLAIN_CHANNELS:], looks[4] + looks[20])
    what = sum(
        caption_map.things[label].view(LAYOUT_EMBEDDING, 1, 1) * looks[where, -1] for label, where in ((3, 4), (7, 20))
    )
    torch.testing.assert_close(told[PAINTED_CHANNELS:-PLAIN_CHANNELS], what)


def test_things_end_where_their_place_is_said() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scene = random_scene(rng)
        caption = canonical_caption(scene, rng)
        words = ["<begin>", *caption.split()]
        found = clauses(caption)
        wanted = [(LABELS.index(o.label), kind_of(place_of(o.box).value, o.size.value)) for o in scene.objects]
        assert sorted(found.values()) == sorted(wanted)
        for end, (label, _) in found.items():
            assert " ".join(words[:end]).endswith(LABELS[label])
    kinds = {kind_of(place.value, size.value) for place in PLACES for size in Size}
    assert kinds == set(range(KINDS))


@pytest.mark.slow
def test_kinds_look_like_boxes_of_their_place_and_size() -> None:
    """Coverage of "large ... top-left" lies in the first third each way, and there is more of it than of "small"."""
    profile = get_profile("story")
    painter = ScenePainter(profile, profile.weights_folder)
    clip = profile.clip
    unet = CaptionUNet(profile.unet, clip.text_hidden, clip.text_positions, clip.text_hidden, len(LABELS))
    rng = np.random.default_rng(0)
    tell_looks(unet.caption_map, painter, unet, [random_scene(rng) for _ in range(300)])
    covered = unet.caption_map.kinds[:, -1]
    corner, small = covered[kind_of("top-left", "large")], covered[kind_of("top-left", "small")]
    assert corner[:8, :8].sum() > 0.9 * corner.sum() and corner.sum() > 2 * small.sum() > 0


def test_blur_leaves_most_captions_alone() -> None:
    conditioning = torch.randn(400, 8, 16, generator=torch.Generator().manual_seed(0))
    told = Blur.of(conditioning)(conditioning, np.random.default_rng(0))
    same = (told == conditioning).flatten(1).all(dim=1).float().mean()
    assert 0.6 < same < 0.8
    assert 0.001 < (told - conditioning).square().mean() < 0.05
