"""The compiled schedule against the diffusers scheduler that it was read off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mgcc_ref.config import SamplerConfig, get_profile, student_sampler
from mgcc_ref.networks.solver import Solver
from mgcc_ref.schedule import ScheduleTable, build_scheduler, compile_schedule, step_coefficients
from mgcc_runtime.contract import SOLVER_LATENTS

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


def walk(coefficients: Sequence[Sequence[float]], x_T: Tensor, predictions: list[Tensor]) -> list[Tensor]:
    """The iterates that the stage `solver` gives, in its own arithmetic."""
    order, solver = len(coefficients[0]) - SOLVER_LATENTS, Solver()
    latents, found = [x_T] * SOLVER_LATENTS, []
    for i, row in enumerate(coefficients):
        newest = [predictions[max(i - j, 0)] for j in range(order)]
        x, finite = solver(*latents, *newest, torch.tensor(row))
        assert finite.tolist() == [True]
        latents = [x, *latents][:SOLVER_LATENTS]
        found.append(x)
    return found


@pytest.mark.parametrize("profile", ["tiny", "story", "paper", "student"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 20, 50])
def test_steps_walk_the_schedulers_trajectory(profile: str, steps: int) -> None:
    config = get_profile("story" if profile == "student" else profile)
    sampler = student_sampler(config.sampler) if profile == "student" else config.sampler
    scheduler = build_scheduler(sampler, config.unet.prediction)
    scheduler.set_timesteps(steps)
    table = compile_schedule(sampler, config.unet.prediction, steps)
    generator = torch.Generator().manual_seed(steps)
    x = torch.randn((1, 4, 8, 8), generator=generator) * table.init_scale
    predictions = [torch.randn(x.shape, generator=generator) for _ in table.timesteps]
    found = walk(step_coefficients(table, sampler.order), x, predictions)
    for ours, timestep, prediction in zip(found, scheduler.timesteps, predictions, strict=True):
        x = scheduler.step(prediction, timestep, x, return_dict=False)[0]
        assert float((ours - x).norm() / x.norm()) < RELATIVE


def test_steps_are_small_numbers() -> None:
    """Which is why float32 is enough; the matrix of fifty DPM-Solver steps has coefficients that cancel out."""
    for profile in ("story", "paper"):
        config = get_profile(profile)
        table = compile_schedule(config.sampler, config.unet.prediction, 50)
        rows = step_coefficients(table, config.sampler.order)
        assert max(abs(c) for row in rows for c in row) < 2.5


@pytest.mark.parametrize(("profile", "order"), [("story", 1), ("paper", 3)])
def test_an_order_too_low_is_refused(profile: str, order: int) -> None:
    config = get_profile(profile)
    table = compile_schedule(config.sampler, config.unet.prediction, 20)
    with pytest.raises(ValueError, match=f"looks at more than {order} predictions"):
        step_coefficients(table, order)


def test_a_term_left_out_does_not_match() -> None:
    """Without x_{i-1}, as a solver that keeps one iterate would have it."""
    config = get_profile("story")
    table = compile_schedule(config.sampler, config.unet.prediction, 20)
    generator = torch.Generator().manual_seed(0)
    x, *predictions = (torch.randn((1, 4, 8, 8), generator=generator) for _ in range(21))
    rows = step_coefficients(table, config.sampler.order)
    exact = walk(rows, x, predictions)[-1]
    wrong = walk([(row[0] + row[1], 0.0, *row[2:]) for row in rows], x, predictions)[-1]
    assert float((wrong - exact).norm() / exact.norm()) > 1000 * RELATIVE


def test_the_wrong_prediction_type_does_not_match() -> None:
    sampler = get_profile("story").sampler
    wrong = compile_schedule(sampler, "epsilon", 20)
    assert max(trajectories(sampler, "v_prediction", wrong, 20)) > 1000 * RELATIVE


def test_a_scheduler_that_rescales_its_input_is_refused() -> None:
    sampler = replace(get_profile("story").sampler, scheduler="EulerDiscreteScheduler")
    with pytest.raises(ValueError, match="rescales the network's input"):
        compile_schedule(sampler, "epsilon", 4)
