"""Boxes make room for each other and get edges on whole pixels: `mgcc_ref/box_placement.py` in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS, _STEP = 24, 0.7


def settle(boxes: NDArray[np.float32], present: NDArray[np.bool_], max_overlap: float) -> NDArray[np.float32]:
    """Move present boxes xyxy (N, 4) in [0, 1] until no two share more than about `max_overlap` of the smaller one.

    Of such a pair each goes half of the way, along the axis on which they share least. `present` is (N,).
    """
    boxes = boxes.astype(np.float32)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    area = 4 * half.prod(axis=1)
    smaller = np.minimum(area[:, None], area)
    index = np.arange(len(boxes))
    both = present[:, None] & present & (index[:, None] != index)
    tie = np.where(index[:, None] > index, np.float32(1), np.float32(-1))[..., None]
    for _ in range(_ROUNDS):
        away = centre[:, None] - centre  # (N, N, 2) from the second to the first
        shared = np.maximum(half[:, None] + half - np.abs(away), 0)
        too_much = both & (shared.prod(axis=-1) > max_overlap * smaller)
        if not too_much.any():
            break
        moved = too_much[..., None] & (shared <= shared[..., ::-1])
        direction = np.where(np.abs(away) > 1e-4, np.sign(away), tie)
        step = np.where(moved, np.float32(0.5 * _STEP) * direction * shared, 0).sum(axis=1)
        centre = np.minimum(np.maximum(centre + step, half), 1 - half)
    settled: NDArray[np.float32] = np.where(
        present[:, None], np.concatenate([centre - half, centre + half], axis=1), boxes
    )
    return settled.astype(np.float32)


def to_whole_pixels(boxes: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Boxes xyxy (N, 4) in [0, 1] with their edges on pixels of a picture of this side, at least one pixel each way.

    The longer side is rounded and the other goes with it, so that the aspect stays; the centre, as near as may be.
    """
    px = boxes.astype(np.float32) * np.float32(side_px)
    extent = px[:, 2:] - px[:, :2]
    longest = extent.max(axis=1, keepdims=True)
    scale = np.round(longest) / np.maximum(longest, np.float32(1e-6))
    size = np.clip(np.round(extent * scale), 1, side_px)
    start = np.clip(np.round((px[:, :2] + px[:, 2:] - size) / 2), 0, side_px - size)
    return (np.concatenate([start, start + size], axis=1) / side_px).astype(np.float32)
