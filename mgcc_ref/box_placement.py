"""Boxes make room for each other and get edges on whole pixels, after the grounder and before the UNet."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS, _STEP = 24, 0.7


def settle(boxes: Tensor, present: Tensor, max_overlap: float) -> Tensor:
    """Move present boxes xyxy (N, 4) in [0, 1] until no two share more than about `max_overlap` of the smaller one.

    Every query of the grounder answers for itself, so two may take one place, and both would be drawn as one blend. Of
    such a pair each goes half of the way, along the axis on which they share least. `present` (N,) is bool. Outside of
    the stage, since TensorRT-RTX's builder takes minutes over these small steps, or fails.
    """
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    area = 4 * half.prod(dim=1)
    smaller = torch.minimum(area.unsqueeze(1), area)  # (N, N)
    index = torch.arange(len(boxes))
    both = present.unsqueeze(1) & present & (index.unsqueeze(1) != index)
    tie = torch.where(index.unsqueeze(1) > index, 1.0, -1.0).unsqueeze(-1)  # who goes which way at one place
    for _ in range(_ROUNDS):
        away = centre.unsqueeze(1) - centre  # (N, N, 2) from the second to the first
        shared = (half.unsqueeze(1) + half - away.abs()).clamp_min(0.0)
        too_much = both & (shared.prod(dim=-1) > max_overlap * smaller)
        if not too_much.any():
            break
        moved = too_much.unsqueeze(-1) & (shared <= shared.flip(-1))
        direction = torch.where(away.abs() > 1e-4, away.sign(), tie)
        step = torch.where(moved, 0.5 * _STEP * direction * shared, 0.0).sum(dim=1)
        centre = torch.minimum(torch.maximum(centre + step, half), 1 - half)
    return torch.where(present.unsqueeze(-1), torch.cat([centre - half, centre + half], dim=1), boxes)


def to_whole_pixels(boxes: Tensor, side_px: int) -> Tensor:
    """Boxes xyxy (N, 4) in [0, 1] with their edges on pixels of a picture of this side, at least one pixel each way.

    The longer side is rounded and the other goes with it, so that the aspect stays; the centre, as near as may be. A
    UNet that was trained on boxes of drawn things has seen no others, and blurs what lies between pixels.
    """
    px = boxes * side_px
    extent = px[:, 2:] - px[:, :2]
    longest = extent.amax(dim=1, keepdim=True)
    size = (extent * (longest.round() / longest.clamp_min(1e-6))).round().clamp(1, side_px)
    start = torch.minimum(((px[:, :2] + px[:, 2:] - size) / 2).round().clamp_min(0), side_px - size)
    return torch.cat([start, start + size], dim=1) / side_px
