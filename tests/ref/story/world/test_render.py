"""Pictures of StoryWorld are sound at every pixel."""

from __future__ import annotations

import numpy as np
import pytest

from mgcc_ref.story.world.scene import IMAGE_PX, Background, Scene, backdrop, place, render
from mgcc_ref.story.world.sprites import LABELS, sprite


@pytest.mark.parametrize("label", LABELS)
def test_premultiplied_colour_never_exceeds_alpha(label):
    """Else white art would come out brighter than white, which wraps to black dots in uint8."""
    for side in (28, 37, 44, 60):
        art = sprite(label, side)
        assert (art[..., :3] <= art[..., 3:]).all()


@pytest.mark.parametrize("background", Background)
def test_rendered_picture_is_the_blend_of_its_layers(background):
    """Against a blend in float that is clipped before it is rounded: no pixel may differ by more than rounding."""
    item = place("penguin", (0.5, 0.5), 48)
    art = sprite(item.label, item.long_side_px)
    left, top = round(item.box[0] * IMAGE_PX), round(item.box[1] * IMAGE_PX)
    expected = backdrop(background).copy()
    region = expected[top : top + art.shape[0], left : left + art.shape[1]]
    region[:] = art[..., :3] + region * (1 - art[..., 3:])
    got = render(Scene(background, (item,))).astype(np.float32)
    assert np.abs(got - expected.clip(0, 1) * 255).max() <= 0.5 + 1e-3
