"""Placement of the grounder's boxes before the UNet: overlapping boxes move apart, edges lie on whole pixels."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS, _STEP = 24, 0.7


def settle(boxes: Tensor, present: Tensor, max_overlap: float) -> Tensor:
    """Move present boxes xyxy (N, 4) in [0, 1] until no two share more than about `max_overlap` of the smaller one.

    Each query of the grounder predicts its own box, so two may coincide, and the UNet would blend their objects. The
    boxes of such a pair each move half of the way, along the axis of least overlap. `present` (N,) is bool. This is no
    part of the stage's graph: TensorRT-RTX's builder takes minutes for these small steps, or fails.
    """
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    area = 4 * half.prod(dim=1)
    smaller = torch.minimum(area.unsqueeze(1), area)  # (N, N)
    index = torch.arange(len(boxes))
    both = present.unsqueeze(1) & present & (index.unsqueeze(1) != index)
    tie = torch.where(index.unsqueeze(1) > index, 1.0, -1.0).unsqueeze(-1)  # direction where centres coincide
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
    """Boxes xyxy (N, 4) in [0, 1] with edges on whole pixels of a picture of `side_px`, at least one pixel each way.

    The longer side is rounded and the other scaled with it, to keep the aspect; the centre moves as little as
    possible. The UNet was trained on boxes with such edges, and blurs objects whose edges lie between pixels.
    """
    px = boxes * side_px
    extent = px[:, 2:] - px[:, :2]
    longest = extent.amax(dim=1, keepdim=True)
    size = (extent * (longest.round() / longest.clamp_min(1e-6))).round().clamp(1, side_px)
    start = torch.minimum(((px[:, :2] + px[:, 2:] - size) / 2).round().clamp_min(0), side_px - size)
    return torch.cat([start, start + size], dim=1) / side_px
