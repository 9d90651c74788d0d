"""Step `student`: a UNet that reaches in four steps the result of the guided teacher after twenty.

The teacher's guided trajectories are drawn once, from fixed noise, and kept at the student's noise levels. Between
two levels, the student's one step is a regression with a single right answer (progressive distillation, arXiv
2202.00512, in one stage; guidance folded in as in arXiv 2210.03142): nothing is averaged, so pictures stay sharp.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor, nn

from mgcc_ref.config import Profile, student_folder, student_sampler
from mgcc_ref.networks.unet import GroundedUNet
from mgcc_ref.schedule import ScheduleTable, compile_schedule
from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.story.world.scene import Scene, random_scene
from mgcc_ref.train.errors import TrainingError
from mgcc_ref.train.loop import Batch, TrainingPrecision, frozen_arithmetic, on_device_of
from mgcc_ref.train.painter import ScenePainter
from mgcc_ref.train.pixels import psnr_db, scene_pixels, to_image_range
from mgcc_ref.train.steps.denoising import USUAL, SetSize, weighted_error
from mgcc_ref.train.steps.unet import BACKGROUND_ONLY_CAPTIONS
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

BATCH_SIZE = 32
TEACHER_STEPS = 20
TRAJECTORIES, HELD_BACK_TRAJECTORIES = 2_400, 64
SCENE_SEED, HELD_BACK_SCENE_SEED = 10_000_019, 11_000_027


@dataclass(frozen=True)
class Jump:
    """One step of a first-order solver: x' = keep * x + move * v, evaluated at `timestep`."""

    timestep: float
    keep: float
    move: float


def jumps(table: ScheduleTable) -> tuple[Jump, ...]:
    """The single steps of a one-step solver's table; ValueError for a multistep solver."""
    found = []
    before: tuple[float, ...] = (table.init_scale,)
    for timestep, row in zip(table.timesteps, table.matrix, strict=True):
        keep, move = row[0] / before[0], row[-1]
        if not np.allclose(row[:-1], np.multiply(before, keep), rtol=1e-3, atol=1e-6):
            raise ValueError("the student's solver is no one-step solver; choose DDIM")
        found.append(Jump(timestep, keep, move))
        before = row
    return tuple(found)


class StudentObjective(nn.Module):
    """Mean squared error to the v that gives exactly the teacher's next kept latents, weighted inside the boxes."""

    def __init__(self, unet: GroundedUNet, schedule: tuple[Jump, ...]) -> None:
        super().__init__()
        self.unet, self.schedule = unet, schedule

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        stage = batch["stage"]
        keep, move, t = (
            torch.tensor([getattr(jump, name) for jump in self.schedule], device=stage.device)[stage]
            for name in ("keep", "move", "timestep")
        )
        here, there = batch["here"], batch["there"]
        target = (there - keep.view(-1, 1, 1, 1) * here) / move.view(-1, 1, 1, 1)
        conditions = (batch["conditioning"], batch["boxes"], batch["box_mask"], batch["phrases"])
        loss, v_mse = weighted_error(self.unet.denoise(here, t, *conditions), target, batch["inside"])
        return loss, {"v_mse": v_mse}


class StudentStep:
    """Starts from the teacher's weights; needs `unet.safetensors` of the weights folder."""

    def __init__(
        self,
        profile: Profile,
        weights: Path,
        run_folder: Path,
        precision: TrainingPrecision = TrainingPrecision.FP32,
        size: SetSize = USUAL,
    ) -> None:
        self._precision = precision  # of the frozen teacher
        self.painter = ScenePainter(profile, weights)
        if profile.sampler.distilled:
            raise TrainingError(
                f"profile {profile.name} has a student's UNet already; teach with --profile {profile.teacher}"
            )
        load_module(self.painter.unet, weights / "unet.safetensors")
        sampler = student_sampler(profile.sampler)
        table = compile_schedule(sampler, profile.unet.prediction, sampler.default_steps)
        self._stages = sampler.default_steps
        self._batch_size = size.batch or BATCH_SIZE
        self.painter.unet.to(PartialState().device)  # the teacher draws where it is fastest
        self._kept = self._trajectories(run_folder / "trajectories.npy", SCENE_SEED, size.scenes or TRAJECTORIES)
        held_back = run_folder / "held-back.npy"
        self._held_back_kept = self._trajectories(held_back, HELD_BACK_SCENE_SEED, HELD_BACK_TRAJECTORIES)
        self.objective = StudentObjective(self.painter.unet, jumps(table))

    def _request(self, seed: int, index: int) -> tuple[Scene, str]:
        """Scene and caption of trajectory `index`, the same at each call."""
        rng = np.random.default_rng([seed, index])
        scene = random_scene(rng)
        background_only = rng.random() < BACKGROUND_ONLY_CAPTIONS
        return scene, scene.background.value if background_only else canonical_caption(scene, rng)

    @torch.no_grad()
    def _trajectories(self, path: Path, seed: int, count: int) -> np.ndarray:
        """The teacher's latents at the student's noise levels: (count, stages + 1, C, h, w) float16, cached."""
        if not path.exists():
            chunks = []
            size = self._batch_size
            for start in range(0, count, size):
                chunks.append(self._teach(seed, range(start, min(start + size, count))))
                if start // size % 10 == 0:
                    log.info("trajectories %d of %d", start, count)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path.with_suffix(".tmp.npy"), np.concatenate(chunks))
            path.with_suffix(".tmp.npy").replace(path)
        return np.load(path)

    def _teach(self, seed: int, indices: range) -> np.ndarray:
        sampler = self.painter.profile.sampler
        assert sampler.default_guidance is not None
        scenes, captions = zip(*(self._request(seed, i) for i in indices), strict=True)
        with frozen_arithmetic(self._precision):
            points = list(
                self.painter.trajectory(
                    list(scenes), list(captions),
                    steps=TEACHER_STEPS, guidance=sampler.default_guidance, seed=[seed, indices.start],
                )
            )  # fmt: skip
        every = TEACHER_STEPS // self._stages
        return torch.stack(points[::every], dim=1).half().numpy()

    def _examples(self, kept: np.ndarray, seed: int, indices: np.ndarray, stages: np.ndarray) -> Batch:
        scenes, captions = zip(*(self._request(seed, int(i)) for i in indices), strict=True)
        points = torch.from_numpy(kept[indices]).float()
        rows = torch.arange(len(indices))
        stage = torch.from_numpy(stages)
        return {
            **self.painter.conditions(list(scenes), list(captions)),
            "stage": stage,
            "here": points[rows, stage],
            "there": points[rows, stage + 1],
        }

    def batch(self, rng: np.random.Generator) -> Batch:
        size = self._batch_size
        indices, stages = rng.integers(len(self._kept), size=size), rng.integers(self._stages, size=size)
        return self._examples(self._kept, SCENE_SEED, indices, stages)

    def _land(self, count: int) -> Tensor:
        """The student's x_0 from the initial noise of `count` held-back trajectories: (count, C, h, w)."""
        everything = np.arange(count)
        batch = self._examples(self._held_back_kept, HELD_BACK_SCENE_SEED, everything, np.zeros(count, np.int64))
        batch = on_device_of(self.objective, batch)
        x = batch["here"]
        for jump in self.objective.schedule:
            t = torch.full((count,), jump.timestep, device=x.device)
            conditions = (batch["conditioning"], batch["boxes"], batch["box_mask"], batch["phrases"])
            x = jump.keep * x + jump.move * self.objective.unet.denoise(x, t, *conditions)
        return x.cpu()

    def evaluate(self) -> dict[str, float]:
        """PSNR of the student's pictures against the teacher's from the same noise."""
        count = len(self._held_back_kept)
        landed, wanted = self._land(count), torch.from_numpy(self._held_back_kept[:, -1]).float()
        pictures = [to_image_range(self.painter.vae.decode(latents)) for latents in (landed, wanted)]
        return {"latent_mse": float((landed - wanted).square().mean()), "psnr_to_teacher_db": psnr_db(*pictures)}

    def picture(self, path: Path) -> None:
        """Eight held-back scenes: the truth, the teacher, the student."""
        count = min(8, len(self._held_back_kept))
        scenes = [self._request(HELD_BACK_SCENE_SEED, i)[0] for i in range(count)]
        teacher = torch.from_numpy(self._held_back_kept[:count, -1]).float()
        drawn = [to_image_range(self.painter.vae.decode(x)) for x in (teacher, self._land(count))]
        true = to_image_range(scene_pixels(scenes, self.painter.profile.image_px))
        rows = [np.concatenate(list(images), axis=1) for images in (true, *drawn)]
        Image.fromarray(np.concatenate(rows, axis=0)).save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.objective.unet, student_folder(folder) / "unet.safetensors")]

    def load_weights(self, folder: Path) -> None:
        load_module(self.objective.unet, student_folder(folder) / "unet.safetensors")
