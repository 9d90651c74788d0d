"""The sampler, compiled: a linear multistep solver's whole trajectory is one triangular matrix.

Every scheduler used here is linear in the latents and in the network's predictions. So its i-th iterate is a
fixed combination of the first noise and of the predictions so far. Running the `diffusers` scheduler itself
on basis vectors reads those coefficients off, whatever its order or its special first steps (PLMS, multistep
DPM-Solver); a runtime then needs no scheduler code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import diffusers
import torch

from mgcc_ref.config import SamplerConfig


@dataclass(frozen=True)
class ScheduleTable:
    """Coefficients for one number of steps. E evaluations of the network.

    x_{i+1} = matrix[i][0] * x_T + sum over j <= i of matrix[i][1 + j] * prediction_j
    """

    timesteps: tuple[float, ...]  # E, of the training schedule
    init_scale: float  # x_T = init_scale * unit noise
    matrix: tuple[tuple[float, ...], ...]  # row i has i + 2 entries

    def to_json(self) -> dict[str, Any]:
        return {
            "timesteps": list(self.timesteps),
            "init_scale": self.init_scale,
            "matrix": [list(row) for row in self.matrix],
        }


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
    return getattr(diffusers, sampler.scheduler)(**options)


def compile_schedule(sampler: SamplerConfig, prediction: str, steps: int) -> ScheduleTable:
    """Read the solver's coefficients off a run on basis vectors, in float64.

    Raises ValueError if the scheduler is not linear or rescales its input, which a table cannot say.
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
