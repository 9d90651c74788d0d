"""Denoising by a compiled schedule: a table of coefficients stands for the whole scheduler.

A linear multistep solver's step is a fixed combination of the last few iterates and predictions, and a stage of its
own: where the UNet runs on a GPU, latents stay there from the first step to the last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.bundle.folder import REBUILD
from mgcc_runtime.contract import SOLVER_LATENTS, StageSpec
from mgcc_runtime.engines import Feed
from mgcc_runtime.errors import BundleError, OptionError
from mgcc_runtime.reading import read_json

SCHEMA = 2  # of schedule.json
Latents = NDArray[np.float32]

#: Makes a step of the solver: its coefficients (n,), latents and predictions, newest first, to the next latents.
Advance: TypeAlias = Callable[[NDArray[np.float32], Sequence[Feed], Sequence[Feed]], Feed]


@dataclass(frozen=True)
class ScheduleTable:
    """One number of steps: E evaluations of the network, and the solver's step after each."""

    timesteps: tuple[float, ...]
    init_scale: float
    coefficients: NDArray[np.float32]  # (E, SOLVER_LATENTS + order): of latents, then of predictions, newest first

    def __post_init__(self) -> None:
        shape = self.coefficients.shape
        if not self.timesteps or len(shape) != 2 or shape[0] != len(self.timesteps) or shape[1] <= SOLVER_LATENTS:
            raise ValueError(f"{len(self.timesteps)} timesteps with coefficients of shape {shape}")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ScheduleTable:
        """A table of schedule.json; KeyError, TypeError or ValueError if it is not of that form."""
        coefficients = np.array(values["coefficients"], np.float32)
        return cls(tuple(map(float, values["timesteps"])), float(values["init_scale"]), coefficients)

    def to_json(self) -> dict[str, Any]:
        return {
            "timesteps": list(self.timesteps),
            "init_scale": self.init_scale,
            "coefficients": self.coefficients.tolist(),
        }

    @property
    def evaluations(self) -> int:
        return len(self.timesteps)


@dataclass(frozen=True)
class Schedule:
    """All tables of a bundle, by number of steps."""

    prediction: str
    scheduler: str  # that the tables were compiled from, by its diffusers class
    default_steps: int
    gate_fraction: float  # GLIGEN's gates are on for this first part of the evaluations
    tables: dict[int, ScheduleTable]

    @classmethod
    def load(cls, path: Path) -> Schedule:
        """Read schedule.json; BundleError if it is not of the expected form."""
        values = read_json(path, "schedule")
        try:
            if values["schema"] != SCHEMA:
                raise BundleError(f"schedule {path} has schema {values['schema']!r}, expected {SCHEMA}; {REBUILD}")
            return cls(
                prediction=str(values["prediction"]),
                scheduler=str(values["scheduler"]),
                default_steps=int(values["default_steps"]),
                gate_fraction=float(values["gate_fraction"]),
                tables={int(steps): ScheduleTable.from_json(table) for steps, table in values["tables"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"schedule {path} is not of the expected form ({error!r}); {REBUILD}") from None

    def to_json(self) -> dict[str, Any]:
        """schedule.json, as `load` reads it."""
        return {
            "schema": SCHEMA,
            "prediction": self.prediction,
            "scheduler": self.scheduler,
            "default_steps": self.default_steps,
            "gate_fraction": self.gate_fraction,
            "tables": {str(steps): table.to_json() for steps, table in self.tables.items()},
        }

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


def solver_feeds(
    solver: StageSpec, coefficients: Latents, latents: Sequence[Feed], predictions: Sequence[Feed]
) -> dict[str, Feed]:
    """The inputs of the stage `solver` by name; latents and predictions newest first."""
    return dict(zip((t.name for t in solver.inputs), (*latents, *predictions, coefficients), strict=True))


def initial_noise(seed: int, shape: tuple[int, ...]) -> Latents:
    """Unit noise of a request's image."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def denoise(
    table: ScheduleTable, noise: Latents, predict: Callable[[int, Feed, float], Feed], advance: Advance
) -> Iterator[Feed]:
    """Yield the latents after each evaluation, wherever `advance` leaves them; the last ones are x_0.

    `noise` is unit noise; `predict(i, x, timestep)` is the network's prediction, of the shape of `noise`.
    """
    x: Feed = np.float32(table.init_scale) * noise
    # what was before the first step counts nothing: its coefficients are zero, and any finite tensor stands for it
    latents: deque[Feed] = deque([x] * SOLVER_LATENTS, SOLVER_LATENTS)
    order = table.coefficients.shape[1] - SOLVER_LATENTS
    predictions: deque[Feed] = deque(maxlen=order)
    for i, (timestep, row) in enumerate(zip(table.timesteps, table.coefficients, strict=True)):
        prediction = predict(i, x, timestep)
        predictions.extendleft([prediction] * (1 if predictions else order))
        x = advance(row, tuple(latents), tuple(predictions))
        latents.appendleft(x)
        yield x
