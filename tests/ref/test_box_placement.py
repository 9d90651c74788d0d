"""Boxes that lie on each other make room; the runtime's numpy does what the reference's PyTorch does."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from mgcc_ref.box_placement import settle, to_whole_pixels
from mgcc_ref.story.world.scene import overlap
from mgcc_runtime import box_placement

LIMIT = 0.12


def boxes_of(seed: int, count: int = 5) -> torch.Tensor:
    """Random boxes xyxy inside the picture, many of them on each other."""
    generator = torch.Generator().manual_seed(seed)
    half = 0.11 + 0.08 * torch.rand(count, 2, generator=generator)
    centre = half + (1 - 2 * half) * torch.rand(count, 2, generator=generator)
    return torch.cat([centre - half, centre + half], dim=1)


def most_shared(boxes: torch.Tensor) -> float:
    return max(overlap(tuple(a.tolist()), tuple(b.tolist())) for a, b in itertools.combinations(boxes, 2))


def test_present_boxes_share_little_afterwards_and_keep_their_size() -> None:
    before = [boxes_of(seed) for seed in range(60)]
    after = [settle(boxes, torch.ones(5, dtype=torch.bool), LIMIT) for boxes in before]
    assert np.mean([most_shared(boxes) > 0.25 for boxes in before]) > 0.6
    assert np.mean([most_shared(boxes) > 0.25 for boxes in after]) < 0.1, "only in a corner that is too crowded"
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2])
        assert b.min() > -1e-5 and b.max() < 1 + 1e-5


def test_only_what_is_present_and_in_the_way_moves() -> None:
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.4], [0.12, 0.1, 0.42, 0.4], [0.7, 0.7, 0.9, 0.9], [0.1, 0.1, 0.4, 0.4]])
    moved = settle(boxes, torch.tensor([True, True, True, False]), LIMIT)
    assert (moved[:2] - boxes[:2]).abs().amax(dim=1).min() > 0.02
    torch.testing.assert_close(moved[2:], boxes[2:], rtol=0, atol=1e-6)


def test_boxes_with_one_centre_part() -> None:
    boxes = torch.tensor([[0.4, 0.4, 0.6, 0.6]] * 2)
    assert most_shared(settle(boxes, torch.ones(2, dtype=torch.bool), LIMIT)) < 0.25


def test_the_runtime_settles_as_the_reference_does() -> None:
    for seed in range(60):
        boxes, present = boxes_of(seed, 8), torch.arange(8) < 3 + seed % 6
        found = box_placement.settle(boxes.numpy(), present.numpy(), LIMIT)
        np.testing.assert_allclose(found, settle(boxes, present, LIMIT).numpy(), atol=1e-5)


def test_edges_come_to_lie_on_pixels_near_by_and_the_aspect_stays() -> None:
    for seed in range(60):
        boxes = boxes_of(seed)
        px = to_whole_pixels(boxes, 128) * 128
        torch.testing.assert_close(px, px.round(), rtol=0, atol=1e-4)
        assert px.min() > -1e-4 and px.max() < 128 + 1e-4
        before = boxes * 128
        moved = (px - before).abs().max()
        assert moved <= 1.5 + 1e-3, "half a pixel of the centre, and of the size half a one and more"
        sizes = px[:, 2:] - px[:, :2], before[:, 2:] - before[:, :2]
        assert (sizes[0].amax(dim=1) - sizes[1].amax(dim=1)).abs().max() <= 0.5 + 1e-3
        wanted = sizes[1][:, 0] / sizes[1][:, 1] * sizes[0][:, 1]
        assert (sizes[0][:, 0] - wanted).abs().max() <= 1.0 + 0.5 * (sizes[1][:, 0] / sizes[1][:, 1]).max()


def test_boxes_on_pixels_stay_and_none_vanishes_or_leaves_the_picture() -> None:
    boxes = torch.tensor([[0, 0, 128, 128], [3, 5, 40, 22], [127.8, 127.9, 128, 128], [-0.4, 60, 20.3, 100.4]]) / 128
    found = to_whole_pixels(boxes, 128) * 128
    assert found[:2].tolist() == [[0, 0, 128, 128], [3, 5, 40, 22]]
    assert found[2].tolist() == [127, 127, 128, 128]
    assert found[3, 0] == 0 and (found[:, 2:] - found[:, :2]).min() >= 1


def test_the_runtime_rounds_as_the_reference_does() -> None:
    for seed in range(60):
        boxes = boxes_of(seed, 8)
        found = box_placement.to_whole_pixels(boxes.numpy(), 128)
        np.testing.assert_allclose(found, to_whole_pixels(boxes, 128).numpy(), atol=1e-6)
