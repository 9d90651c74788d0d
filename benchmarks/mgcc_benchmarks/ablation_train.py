"""Trains the small modules of every arm: the trainer's own command, once for each seed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mgcc_benchmarks.ablation_arms import Arm, alignment_folder, grounder_folder
from mgcc_runtime.errors import MgccError

ROOT = Path(__file__).resolve().parents[2]


class TrainingFailed(MgccError):
    """One of the ablation's training runs ended with an error."""


@dataclass(frozen=True)
class ArmTraining:
    """One run of the trainer."""

    name: str
    weights: Path  # folder; holds the profile's frozen CLIP beside what is trained
    wanted: str  # the file that it writes
    options: tuple[str, ...]
    after: str | None = None  # the run whose last checkpoint it goes on from


@dataclass(frozen=True)
class TrainingSteps:
    """Optimiser steps of every arm: the same for all seeds, and for an alignment with and without CMRM."""

    align: int = 2000  # GILL's tokens say nothing of the background in the first 1,000
    grounder: int = 1600  # after 600 it finds the objects, and places hardly one


_LONGER = 3  # times the steps of GILL, for the arm that shows what more of them would bring


def trainings(folder: Path, seeds: Sequence[int], steps: TrainingSteps) -> list[ArmTraining]:
    """All runs, in order. Both kinds of alignment see the same data, steps and seeds."""
    found = []
    for seed in seeds:
        found += [_alignment(folder, arm, seed, steps.align) for arm in (Arm.GILL, Arm.CMRM)]
        options = ("--step", "grounder", "--steps", str(steps.grounder), "--seed", str(seed))
        found.append(ArmTraining(f"grounder-{seed}", grounder_folder(folder, seed), "grounder.safetensors", options))
    longer = _alignment(folder, Arm.GILL_LONGER, seeds[0], _LONGER * steps.align)
    return [*found, replace(longer, after=f"align-gill-{seeds[0]}")]


def _alignment(folder: Path, arm: Arm, seed: int, steps: int) -> ArmTraining:
    weights = alignment_folder(folder, arm, seed)
    blocks = () if arm.refined else ("--cmrm-blocks", "0")
    options = ("--step", "align", "--steps", str(steps), "--seed", str(seed), *blocks)
    return ArmTraining(weights.name.replace("weights", "align"), weights, "alignment.safetensors", options)


def train_arms(
    folder: Path,
    seeds: Sequence[int],
    steps: TrainingSteps,
    weights: Path,
    extra: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Run what is not there yet; a run that was stopped goes on. TrainingFailed names the run and its log."""
    for training in trainings(folder, seeds, steps):
        if (training.weights / training.wanted).is_file():
            say(f"{training.name}: done before")
            continue
        training.weights.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights / "clip.safetensors", training.weights / "clip.safetensors")
        _go_on_from(folder, training)
        log = folder / f"{training.name}.log"
        say(f"{training.name}: training, see {log}")
        # the runs lie side by side, so that all share the contexts and features that the first of them reads
        places = ["--run", str(folder / training.name), "--weights", str(training.weights)]
        command = [sys.executable, "-m", "mgcc_ref.train", *training.options, *places, *extra]
        with log.open("a", encoding="utf-8") as file:
            done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise TrainingFailed(f"run {training.name} ended with code {done.returncode}; see {log} and start again")


def _go_on_from(folder: Path, training: ArmTraining) -> None:
    """Give the run the checkpoint of the one that it goes on from, where it has none of its own yet."""
    if training.after is None or (own := folder / training.name / "checkpoint.pt").is_file():
        return
    own.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / training.after / "checkpoint.pt", own)
