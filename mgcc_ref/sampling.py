"""Guided sampling of a batch of pictures by a compiled schedule, for training and the ablation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mgcc_ref.networks.unet import GroundedUNet
from mgcc_ref.schedule import ScheduleTable


class Told(NamedTuple):
    """The UNet's conditions, in the order of its inputs."""

    conditioning: Tensor  # (B, N_c, D_c)
    boxes: Tensor  # (B, N, 4)
    box_mask: Tensor  # (B, N)
    phrases: Tensor  # (B, N, D_p)


def sample_guided(
    unet: GroundedUNet,
    table: ScheduleTable,
    x_T: Tensor,
    told: Told,
    *,
    guidance: float,
) -> Iterator[Tensor]:
    """Yield the latents (B, C, h, w) after each evaluation. The unconditional branch has no caption and no boxes.

    `x_T` (B, C, h, w) is noise at the schedule's first level.
    """
    null = unet.null_conditioning.expand(len(x_T), -1, -1)
    untold = told._replace(conditioning=null, box_mask=torch.zeros_like(told.box_mask))
    x, predictions = x_T, []
    for timestep, row in zip(table.timesteps, table.matrix, strict=True):
        t = torch.full((len(x_T),), timestep, device=x_T.device)
        conditional = unet.denoise(x, t, *told)
        without = unet.denoise(x, t, *untold)
        predictions.append(without + guidance * (conditional - without))
        x = row[0] * x_T + sum(c * p for c, p in zip(row[1:], predictions, strict=True))
        yield x
