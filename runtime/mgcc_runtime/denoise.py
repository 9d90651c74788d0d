"""Denoising by a compiled schedule: a table of coefficients stands for the whole scheduler.

A linear multistep solver's i-th iterate is a fixed combination of the first noise and the predictions so far:
x_{i+1} = M[i][0] * x_T + sum over j <= i of M[i][1 + j] * prediction_j
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.errors import BundleError, OptionError
from mgcc_runtime.files import read_json

Latents = NDArray[np.float32]


@dataclass(frozen=True)
class ScheduleTable:
    """One number of steps: E evaluations of the network; row i of `matrix` has i + 2 coefficients."""

    timesteps: tuple[float, ...]
    init_scale: float
    matrix: tuple[NDArray[np.float64], ...]

    def __post_init__(self) -> None:
        if not self.timesteps or [len(row) for row in self.matrix] != [i + 2 for i in range(len(self.timesteps))]:
            raise ValueError(f"{len(self.timesteps)} timesteps with rows of {[len(row) for row in self.matrix]} values")

    @property
    def evaluations(self) -> int:
        return len(self.timesteps)


@dataclass(frozen=True)
class Schedule:
    """All tables of a bundle, by number of steps."""

    prediction: str
    default_steps: int
    gate_fraction: float  # GLIGEN's gates are on for this first part of the evaluations
    tables: dict[int, ScheduleTable]

    @classmethod
    def load(cls, path: Path) -> Schedule:
        """Read schedule.json; BundleError if it is not of the expected form."""
        values = read_json(path, "schedule")
        try:
            return cls(
                prediction=str(values["prediction"]),
                default_steps=int(values["default_steps"]),
                gate_fraction=float(values["gate_fraction"]),
                tables={int(steps): _table(table) for steps, table in values["tables"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"schedule {path} is not of the expected form ({error!r}); rebuild the bundle") from None

    def table(self, steps: int) -> ScheduleTable:
        if steps not in self.tables:
            known = sorted(self.tables)
            if len(known) == 1:
                expected = f"{known[0]} and no other"
            elif known == list(range(known[0], known[-1] + 1)):
                expected = f"{known[0]} to {known[-1]}"
            else:
                expected = "one of " + ", ".join(map(str, known))
            raise OptionError(f"steps is {steps}, expected {expected}; the bundle's default is {self.default_steps}")
        return self.tables[steps]

    def gated_evaluations(self, table: ScheduleTable) -> int:
        """How many of the first evaluations run with GLIGEN's gates on."""
        return int(self.gate_fraction * table.evaluations)


def _table(values: dict[str, Any]) -> ScheduleTable:
    rows = tuple(np.array(row, np.float64) for row in values["matrix"])
    return ScheduleTable(tuple(map(float, values["timesteps"])), float(values["init_scale"]), rows)


def initial_noise(seed: int, shape: tuple[int, ...]) -> Latents:
    """Unit noise of a request's image."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def denoise(
    table: ScheduleTable, noise: Latents, predict: Callable[[int, Latents, float], Latents]
) -> Iterator[Latents]:
    """Yield the latents after each evaluation; the last ones are x_0.

    `noise` is unit noise; `predict(i, x, timestep)` is the network's prediction, of the shape of `noise`.
    """
    x = np.float32(table.init_scale) * noise
    history = np.empty((table.evaluations + 1, noise.size), np.float64)
    history[0] = x.ravel()
    for i, (timestep, row) in enumerate(zip(table.timesteps, table.matrix, strict=True)):
        history[i + 1] = predict(i, x, timestep).ravel()
        # float64, since the coefficients of late steps are large and of alternating signs
        x = (row @ history[: i + 2]).astype(np.float32).reshape(noise.shape)
        yield x
