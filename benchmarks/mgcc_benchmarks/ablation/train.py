"""Trains the small modules of every arm: the trainer's own command, once for each seed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mgcc_benchmarks.ablation.arms import (
    ALIGNMENT_FILE,
    CAPTION_UNET_FILE,
    GROUNDER_FILE,
    LONGER_TIMES,
    Arm,
    alignment_folder,
    caption_unet_folder,
    grounder_folder,
)
from mgcc_benchmarks.ablation.settings import (
    CLIP_FILE,
    SETTINGS_FILE,
    Settings,
    differences,
    hashes,
    read_settings,
    write_settings,
)
from mgcc_ref.config import Refinement
from mgcc_runtime.errors import InputError, MgccError

ROOT = Path(__file__).resolve().parents[3]


class TrainingFailed(MgccError):
    """One of the ablation's training runs ended with an error."""


@dataclass(frozen=True)
class ArmTraining:
    """One run of the trainer."""

    name: str
    weights: Path  # folder; holds `starts_from` beside what is trained
    wanted: str  # the file that it writes
    options: tuple[str, ...]
    after: str | None = None  # the run whose last checkpoint it continues
    starts_from: tuple[str, ...] = (CLIP_FILE,)  # of the profile's weights

    @property
    def run(self) -> Path:
        """The run's folder, beside those of all other arms."""
        return self.weights.parent / self.name

    @property
    def checkpoint(self) -> Path:
        return self.run / "checkpoint.pt"

    @property
    def done(self) -> bool:
        return (self.weights / self.wanted).is_file()

    def settings(self, extra: Sequence[str], frozen: Mapping[str, str]) -> dict[str, Any]:
        """All that its weights depend on: the trainer's options by name, and the SHA-256 of `frozen` files by name."""
        options = [*self.options, *extra]
        named = {name.removeprefix("--"): value for name, value in zip(options[::2], options[1::2], strict=True)}
        return {"options": {**named, "after": self.after}, "frozen": dict(frozen)}


@dataclass(frozen=True)
class TrainingSteps:
    """Optimiser steps of every arm: the same for all seeds, and for an alignment with and without CMRM.

    `caption_unet`: of the UNet that all arms without boxes share.
    """

    align: int = 2000  # in the first 1,000 GILL's tokens do not encode the background
    grounder: int = 1600  # after 600 it finds the objects, and places hardly one
    caption_unet: int = 1400


_DRAWING = (CLIP_FILE, "vae.safetensors", "unet.safetensors")


def trainings(folder: Path, seeds: Sequence[int], steps: TrainingSteps) -> list[ArmTraining]:
    """All runs, in order. All kinds of alignment see the same data, steps and seeds."""
    found = []
    for seed in seeds:
        found += [_alignment(folder, arm, seed, steps.align) for arm in (Arm.GILL, Arm.CMRM_UNORDERED, Arm.CMRM)]
        options = ("--step", "grounder", "--steps", str(steps.grounder), "--seed", str(seed))
        found.append(ArmTraining(f"grounder-{seed}", grounder_folder(folder, seed), GROUNDER_FILE, options))
    longer = _alignment(folder, Arm.GILL_LONGER, seeds[0], LONGER_TIMES * steps.align)
    options = ("--step", "caption_unet", "--steps", str(steps.caption_unet), "--seed", "0")
    drawn = ArmTraining("caption-unet", caption_unet_folder(folder), CAPTION_UNET_FILE, options, starts_from=_DRAWING)
    return [*found, replace(longer, after=f"align-gill-{seeds[0]}"), drawn]


def _alignment(folder: Path, arm: Arm, seed: int, steps: int) -> ArmTraining:
    weights = alignment_folder(folder, arm, seed)
    order = () if arm.ordered else ("--refinement", Refinement.UNORDERED.value)
    kind = order if arm.refined else ("--cmrm-blocks", "0")
    options = ("--step", "align", "--steps", str(steps), "--seed", str(seed), *kind)
    return ArmTraining(weights.name.replace("weights", "align"), weights, ALIGNMENT_FILE, options)


@dataclass(frozen=True)
class CommonStart:
    """The common start of all arms."""

    weights: Path  # the folder with the profile's frozen files
    extra: Sequence[str]  # more options of the trainer, in pairs
    frozen: Mapping[str, str]  # SHA-256 by name of the files that all arms start from


def train_arms(
    folder: Path, seeds: Sequence[int], steps: TrainingSteps, start: CommonStart, say: Callable[[str], None]
) -> None:
    """Run the trainings that are missing, and resume those that were stopped.

    InputError if an arm was trained with another start; TrainingFailed names the run and its log.
    """
    weights, extra, frozen = start.weights, start.extra, start.frozen
    runs = trainings(folder, seeds, steps)
    known = {training.name: {**hashes(weights / name for name in training.starts_from), **frozen} for training in runs}
    _check_trained(runs, extra, known, say)
    for training in runs:
        if training.done:
            say(f"{training.name}: done before")
            continue
        training.weights.mkdir(parents=True, exist_ok=True)
        for name in training.starts_from:
            shutil.copyfile(weights / name, training.weights / name)
        if not training.checkpoint.is_file():  # an existing checkpoint keeps its own settings
            write_settings(training.weights, training.settings(extra, known[training.name]))
        _go_on_from(folder, training)
        log = folder / f"{training.name}.log"
        say(f"{training.name}: training, see {log}")
        # the run folders are siblings, so that all share the contexts and features that the first run computes
        places = ["--run", str(training.run), "--weights", str(training.weights)]
        command = [sys.executable, "-m", "mgcc_ref.train", *training.options, *places, *extra]
        with log.open("a", encoding="utf-8") as file:
            done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise TrainingFailed(f"run {training.name} ended with code {done.returncode}; see {log} and start again")


def _check_trained(
    runs: Sequence[ArmTraining],
    extra: Sequence[str],
    frozen: Mapping[str, Mapping[str, str]],
    say: Callable[[str], None],
) -> None:
    """Refuse arms, finished or begun, that were trained with other settings, before hours of training are spent.

    `frozen`: for each run's name, the SHA-256 by file name of the files that it starts from.
    """
    unknown = []
    for training in runs:
        if not training.done and not training.checkpoint.is_file():
            continue
        told = read_settings(training.weights)
        if told is None:
            unknown.append(training.name)
            told = _what_its_clip_tells(training)
        if wrong := differences(told, training.settings(extra, frozen[training.name])):
            raise InputError(
                f"arm {training.name} in {training.weights} was trained with {' and '.join(wrong)}; give the options "
                "and weights of then, or another --folder"
            )
    if unknown:
        say(
            f"{', '.join(unknown)}: no {SETTINGS_FILE} tells with which steps, precision and weights these were "
            "trained; they are taken as they are"
        )


def _what_its_clip_tells(training: ArmTraining) -> Settings:
    """The settings known of an arm without a settings file: the SHA-256 of its copy of the frozen CLIP."""
    return {"frozen": hashes([training.weights / CLIP_FILE])}


def _go_on_from(folder: Path, training: ArmTraining) -> None:
    """Copy the checkpoint of the run that this one continues, unless it has one of its own."""
    if training.after is None or training.checkpoint.is_file():
        return
    training.run.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / training.after / "checkpoint.pt", training.checkpoint)
