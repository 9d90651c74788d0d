"""Guided sampling of many pictures at once, by a compiled schedule: what training and the ablation draw with."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mgcc_ref.schedule import ScheduleTable
from mgcc_ref.unet import GroundedUNet


def sample_guided(
    unet: GroundedUNet,
    table: ScheduleTable,
    x_T: Tensor,
    conditioning: Tensor,
    boxes: Tensor,
    box_mask: Tensor,
    phrases: Tensor,
    *,
    guidance: float,
) -> Iterator[Tensor]:
    """Yield the latents (B, C, h, w) after each evaluation; the other branch sees no caption and no boxes.

    `x_T` (B, C, h, w) is noise at the schedule's first level; conditioning (B, N_c, D_c), boxes (B, N, 4), box_mask
    (B, N), phrases (B, N, D_p).
    """
    null = unet.null_conditioning.expand(len(x_T), -1, -1)
    x, predictions = x_T, []
    for timestep, row in zip(table.timesteps, table.matrix, strict=True):
        t = torch.full((len(x_T),), timestep, device=x_T.device)
        conditional = unet.denoise(x, t, conditioning, boxes, box_mask, phrases)
        without = unet.denoise(x, t, null, boxes, torch.zeros_like(box_mask), phrases)
        predictions.append(without + guidance * (conditional - without))
        x = row[0] * x_T + sum(c * p for c, p in zip(row[1:], predictions, strict=True))
        yield x
