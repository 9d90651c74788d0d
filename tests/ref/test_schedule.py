"""The compiled schedule against the diffusers scheduler that it was read off."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mgcc_ref.config import SamplerConfig, get_profile
from mgcc_ref.schedule import ScheduleTable, build_scheduler, compile_schedule

#: The stepping scheduler works in float32, the table in float64; fifty steps add up to less than this.
RELATIVE = 5e-6


def trajectories(sampler: SamplerConfig, prediction: str, table: ScheduleTable, steps: int) -> list[float]:
    """Relative distance of the two after every evaluation, for random predictions."""
    scheduler = build_scheduler(sampler, prediction)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(steps)
    shape = (1, 4, 8, 8)
    x_T = torch.randn(shape, generator=generator) * table.init_scale
    predictions = [torch.randn(shape, generator=generator) for _ in table.timesteps]
    x, found = x_T, []
    for i, timestep in enumerate(scheduler.timesteps):
        x = scheduler.step(predictions[i], timestep, x, return_dict=False)[0]
        row = table.matrix[i]
        ours = row[0] * x_T + sum(c * p for c, p in zip(row[1:], predictions, strict=False))
        found.append(float((ours - x).norm() / x.norm()))
    return found


@pytest.mark.parametrize("profile", ["tiny", "story", "paper"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 20, 50])
def test_every_iterate_is_the_schedulers(profile: str, steps: int) -> None:
    config = get_profile(profile)
    table = compile_schedule(config.sampler, config.unet.prediction, steps)
    assert max(trajectories(config.sampler, config.unet.prediction, table, steps)) < RELATIVE


def test_the_wrong_prediction_type_does_not_match() -> None:
    sampler = get_profile("story").sampler
    wrong = compile_schedule(sampler, "epsilon", 20)
    assert max(trajectories(sampler, "v_prediction", wrong, 20)) > 1000 * RELATIVE


def test_a_scheduler_that_rescales_its_input_is_refused() -> None:
    sampler = replace(get_profile("story").sampler, scheduler="EulerDiscreteScheduler")
    with pytest.raises(ValueError, match="rescales the network's input"):
        compile_schedule(sampler, "epsilon", 4)
