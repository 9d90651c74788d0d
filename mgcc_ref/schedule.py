"""The sampler, compiled: a linear multistep solver's whole trajectory is one triangular matrix.

Every scheduler used here is linear in the latents and in the network's predictions. So its i-th iterate is a
fixed combination of the first noise and of the predictions so far. Running the `diffusers` scheduler itself
on basis vectors gives those coefficients, whatever its order or its special first steps (PLMS, multistep
DPM-Solver). A runtime then needs no scheduler code.

The reference draws with that matrix. The runtime takes multistep solver steps of a few tensors each, which
can stay in a GPU's memory: `step_coefficients` derives them from the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch

from mgcc_ref.config import SamplerConfig
from mgcc_runtime.contract import SOLVER_LATENTS

#: Largest error of a step against its row, relative to the row's largest coefficient. Over all tables of 1 to 50 steps
#: the error is at most 1.3e-8 (DPM-Solver, whose iterates diffusers rounds to float32), with a term too few 4.8e-7.
_SAME_ROW = 1e-7


@dataclass(frozen=True)
class ScheduleTable:
    """Coefficients for one number of steps. E evaluations of the network.

    x_{i+1} = matrix[i][0] * x_T + sum over j <= i of matrix[i][1 + j] * prediction_j
    """

    timesteps: tuple[float, ...]  # E, of the training schedule
    init_scale: float  # x_T = init_scale * unit noise
    matrix: tuple[tuple[float, ...], ...]  # row i has i + 2 entries


def build_scheduler(sampler: SamplerConfig, prediction: str) -> Any:
    """The diffusers scheduler that the profile names, configured as the profile's UNet was trained."""
    options: dict[str, Any] = {
        "num_train_timesteps": 1000,
        "beta_schedule": sampler.beta_schedule,
        "beta_start": sampler.beta_start,
        "beta_end": sampler.beta_end,
        "prediction_type": prediction,
    }
    if sampler.scheduler == "PNDMScheduler":  # as published with Stable Diffusion 1
        options |= {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}
    else:
        options |= {"timestep_spacing": "trailing"}
    if sampler.scheduler == "DDIMScheduler":  # its default clips, for pixels, and is not linear
        options |= {"clip_sample": False}
    return getattr(diffusers, sampler.scheduler)(**options)


def compile_schedule(sampler: SamplerConfig, prediction: str, steps: int) -> ScheduleTable:
    """Read the solver's coefficients off a run on basis vectors, in float64.

    Raises ValueError if the scheduler rescales its input or uses later predictions: no table can express that.
    """
    scheduler = build_scheduler(sampler, prediction)
    scheduler.set_timesteps(steps)
    timesteps = [float(t) for t in scheduler.timesteps]
    count = len(timesteps)
    basis = torch.eye(count + 1, dtype=torch.float64)
    x = basis[0].reshape(1, -1, 1, 1).clone()
    rows: list[tuple[float, ...]] = []
    for i, timestep in enumerate(scheduler.timesteps):
        if not torch.equal(scheduler.scale_model_input(x, timestep), x):
            raise ValueError(f"{sampler.scheduler} rescales the network's input; choose a scheduler that does not")
        prediction_i = basis[1 + i].reshape(1, -1, 1, 1)
        x = scheduler.step(prediction_i, timestep, x, return_dict=False)[0].to(torch.float64)
        coefficients = x.flatten().tolist()
        if any(coefficients[i + 2 :]):
            raise ValueError(f"{sampler.scheduler} uses predictions that it has not been given yet")
        rows.append(tuple(coefficients[: i + 2]))
    return ScheduleTable(tuple(timesteps), float(scheduler.init_noise_sigma), tuple(rows))


def step_coefficients(table: ScheduleTable, order: int) -> tuple[tuple[float, ...], ...]:
    """The steps of a linear multistep method that walk the table's trajectory, E rows of SOLVER_LATENTS + `order`.

    x_{i+1} = row[0] * x_i + row[1] * x_{i-1} + sum over j < order of row[SOLVER_LATENTS + j] * prediction_{i-j};
    terms before the first step have coefficient 0. Unlike the matrix's, these coefficients are small: fifty steps in
    float32 end 6e-7 from the exact result. ValueError if a step needs more predictions than `order`.
    """
    count = len(table.timesteps)
    predictions = np.eye(count + 1)[1:]
    iterates = np.zeros((count + 1, count + 1))
    iterates[0, 0] = 1.0
    for i, row in enumerate(table.matrix):
        iterates[i + 1, : len(row)] = row
    return tuple(_step(iterates, predictions, i, order) for i in range(count))


def _step(iterates: np.ndarray, predictions: np.ndarray, i: int, order: int) -> tuple[float, ...]:
    """The i-th step with the fewest terms that give x_{i+1}: with more, the terms would be linearly dependent."""
    wanted = iterates[i + 1]
    for back in range(1, min(SOLVER_LATENTS, i + 1) + 1):
        for far in range(1, min(order, i + 1) + 1):
            # newest first
            terms = np.stack([*iterates[i - back + 1 : i + 1][::-1], *predictions[i - far + 1 : i + 1][::-1]])
            found, *_ = np.linalg.lstsq(terms.T, wanted, rcond=None)
            if np.abs(found @ terms - wanted).max() <= _SAME_ROW * np.abs(wanted).max():
                row = np.zeros(SOLVER_LATENTS + order)
                row[:back], row[SOLVER_LATENTS : SOLVER_LATENTS + far] = found[:back], found[back:]
                return tuple(row.tolist())
    raise ValueError(
        f"step {i} of {len(predictions)} looks at more than {order} predictions; give a solver's own order"
    )
