"""The few-step student: its schedule, and that a perfect answer lands exactly on the teacher's points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mgcc_ref.config import get_profile, student_sampler
from mgcc_ref.schedule import compile_schedule
from mgcc_ref.train.steps.student import TEACHER_STEPS, StudentObjective, jumps

PROFILE = get_profile("story")
STUDENT_STEPS = student_sampler(PROFILE.sampler).default_steps
TABLE = compile_schedule(student_sampler(PROFILE.sampler), PROFILE.unet.prediction, STUDENT_STEPS)


def test_the_students_noise_levels_are_the_teachers() -> None:
    teacher = compile_schedule(PROFILE.sampler, PROFILE.unet.prediction, TEACHER_STEPS)
    every = TEACHER_STEPS // STUDENT_STEPS
    assert TABLE.timesteps == teacher.timesteps[::every]


def test_single_jumps_are_the_whole_table() -> None:
    """Chained jumps and the triangular matrix give the same latents."""
    rng = np.random.default_rng(0)
    noise, predictions = rng.standard_normal(5), rng.standard_normal((STUDENT_STEPS, 5))
    x = TABLE.init_scale * noise
    for jump, prediction in zip(jumps(TABLE), predictions, strict=True):
        x = jump.keep * x + jump.move * prediction
    row = TABLE.matrix[-1]
    whole = row[0] * noise + sum(c * p for c, p in zip(row[1:], predictions, strict=True))
    np.testing.assert_allclose(x, whole, rtol=1e-4, atol=1e-5)


def test_a_multistep_solver_is_refused() -> None:
    with pytest.raises(ValueError, match="choose DDIM"):
        jumps(compile_schedule(PROFILE.sampler, PROFILE.unet.prediction, 6))


class Oracle(nn.Module):
    """Answers with a fixed v."""

    def __init__(self, v: Tensor) -> None:
        super().__init__()
        self.v = v

    def denoise(self, *_: Tensor) -> Tensor:
        return self.v


@pytest.mark.parametrize("stage", range(STUDENT_STEPS))
def test_the_loss_is_zero_only_where_the_teacher_landed(stage: int) -> None:
    jump, v = jumps(TABLE)[stage], torch.randn(2, 8, 4, 4)
    here = torch.randn(2, 8, 4, 4)
    there = jump.keep * here + jump.move * v
    batch = {name: torch.zeros(2, 4, 4) for name in ("conditioning", "boxes", "box_mask", "phrases", "inside")}
    batch |= {"stage": torch.full((2,), stage), "here": here, "there": there}
    assert float(StudentObjective(Oracle(v), jumps(TABLE))(batch, 0)[0]) < 1e-6  # type: ignore[arg-type]
    assert float(StudentObjective(Oracle(v + 0.1), jumps(TABLE))(batch, 0)[0]) > 5e-3  # type: ignore[arg-type]
