"""The trainer's command for profiles of published parts: its options, and a run from them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState

from mgcc_ref.config import Profile
from mgcc_ref.train.data.sample import Samples
from mgcc_ref.train.data.source import DataSource, data_argument, open_samples
from mgcc_ref.train.errors import TrainingError
from mgcc_ref.train.loop import Trainer, TrainingStep
from mgcc_ref.train.published.align import PublishedAlignStep
from mgcc_ref.train.published.dry_run import needs, told, trial
from mgcc_ref.train.published.frozen import Placement, choose_placement, free_bytes, llm_bytes
from mgcc_ref.train.published.grounder import PublishedGrounderStep
from mgcc_ref.train.published.parts import Setup
from mgcc_ref.train.published.recipes import RECIPES, Recipe
from mgcc_ref.train.published.settings import keep_settings

STEPS: dict[str, Callable[[Setup, Samples, Recipe], TrainingStep]] = {
    "align": PublishedAlignStep,
    "grounder": PublishedGrounderStep,
}
#: Steps of StoryWorld's own networks, and their substitutes in a profile of published parts.
_IN_PLACE = {
    "vae": "its autoencoder as published", "decoder": "its autoencoder as published", "clip": "CLIP as published",
    "unet": "its UNet as published", "caption_unet": "its UNet as published",
    "student": "a LoRA that was distilled for few steps (`tools/derive_profile.py --few-steps`)",
    "draw": "the [IMG] tokens' rows from step align, which trains them too",
}  # fmt: skip
OPTIONS = ("data", "pictures", "split", "micro_batch", "llm_at", "dry_run")
_STORY_OPTIONS = ("fresh", "scenes", "conversations", "painter")


def is_published(profile: Profile) -> bool:
    """Whether training is around published parts: profiles paper*, gill* and derived ones."""
    return profile.vae.kl


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only profiles of published parts have."""
    group = parser.add_argument_group("with published parts (profiles paper*, gill*, and derived ones)")
    group.add_argument(
        "--data", type=data_argument, metavar="FORMAT=PLACE",
        help="cc3m=FILE.tsv, webdataset=DIR, coco=DIR or flickr30k=DIR",
    )  # fmt: skip
    group.add_argument("--pictures", type=Path, metavar="DIR", help="where the format does not have them")
    group.add_argument("--split", help="of coco (default: train2017) and flickr30k (default: train)")
    group.add_argument(
        "--micro-batch", type=int, metavar="N",
        help="samples at once in each process, whose gradients are added up to the batch's (default: all)",
    )  # fmt: skip
    group.add_argument(
        "--llm-at", type=Placement, choices=list(Placement), metavar="{device,host,disk}",
        help="where the language model's blocks are between their turns (default: where there is room)",
    )  # fmt: skip
    group.add_argument("--dry-run", action="store_true", help="say what the run takes in memory and time, and end")


@dataclass(frozen=True)
class Run:
    """A requested run."""

    step: str
    setup: Setup
    source: DataSource
    batch: int
    micro_batch: int
    total_steps: int | None
    folder: Path
    workers: int

    @classmethod
    def of(cls, args: argparse.Namespace, profile: Profile) -> Run:
        """The run of the command's arguments. TrainingError if they contradict each other."""
        if args.step in _IN_PLACE:
            raise TrainingError(
                f"step {args.step} trains a network of StoryWorld's, and profile {profile.name} takes "
                f"{_IN_PLACE[args.step]}; its steps are {' and '.join(STEPS)}"
            )
        if given := [name for name in _STORY_OPTIONS if getattr(args, name)]:
            raise TrainingError(
                f"--{given[0]} is of StoryWorld, and profile {profile.name} learns from --data; leave it out"
            )
        if args.data is None:
            raise TrainingError(
                f"profile {profile.name} learns from captioned pictures and no --data is given; "
                "give it as FORMAT=PLACE, such as coco=DIR"
            )
        recipe = RECIPES[args.step]
        batch = args.batch_size or recipe.batch
        micro = args.micro_batch or -(-batch // PartialState().num_processes)
        if batch % (micro * PartialState().num_processes):
            raise TrainingError(
                f"a batch of {batch} samples cannot be had in parts of {micro} from each of "
                f"{PartialState().num_processes} processes; change --batch-size or --micro-batch"
            )
        if args.step == "align" and micro % 2:
            raise TrainingError(
                f"step align reads captions in pairs, and a part has {micro} samples, expected an even number; "
                "change --batch-size or --micro-batch"
            )
        precision = args.precision or recipe.options.precision
        return cls(
            step=args.step,
            setup=Setup(profile, args.weights or profile.weights_folder, precision, args.llm_at, args.seed).local,
            source=replace(args.data, pictures=args.pictures, split=args.split),
            batch=batch,
            micro_batch=micro,
            total_steps=args.steps,
            folder=args.run or Path("runs") / profile.name / args.step,
            workers=args.workers,
        )

    def trainer(self, *, keep: bool = True, go_on: bool = False) -> Trainer:
        """Open data and weights. WeightsError and DataError name what is missing."""
        recipe = replace(RECIPES[self.step], batch=self.batch, at_once=self.micro_batch)
        processes = PartialState().num_processes
        if keep and PartialState().is_main_process:
            keep_settings(self.folder, {
                "profile": self.setup.profile.name, "step": self.step, "data": self.source.named, "batch": self.batch,
            })  # fmt: skip
        torch.manual_seed(self.setup.seed)
        step = STEPS[self.step](self.setup, open_samples(self.source), recipe)
        if go_on and not (self.folder / "checkpoint.pt").exists():
            step.load_weights(self.setup.weights)
        options = replace(
            recipe.of_length(self.total_steps), precision=self.setup.precision, seed=self.setup.seed,
            workers=self.workers, accumulate=self.batch // (self.micro_batch * processes),
        )  # fmt: skip
        return Trainer(step, options, self.folder)


def train_published(args: argparse.Namespace, profile: Profile) -> list[Path]:
    """Train `align` or `grounder` and save its weights; returns the files, in the main process."""
    run = Run.of(args, profile)
    trainer = run.trainer(go_on=args.go_on)
    trainer.run()
    return trainer.save_weights(run.setup.weights) if trainer.accelerator.is_main_process else []


def what_it_takes(args: argparse.Namespace, profile: Profile) -> Iterator[str]:
    """Lines on the run's memory from shapes, then on the time of a few steps; in the main process."""
    run = Run.of(args, profile)
    device, main = PartialState().device, PartialState().is_main_process
    size = llm_bytes(run.setup.profile.llm, run.setup.precision)
    placement = run.setup.placement or choose_placement(size, device)
    samples = open_samples(run.source)
    lines = [f"{run.source.named}: {len(samples)} samples; language model at: {placement}"]
    lines += told(needs(run.setup, run.step, run.micro_batch, placement), device, free_bytes(device))
    if main:
        yield "\n".join(lines)
    options = RECIPES[run.step].of_length(run.total_steps)
    lines = trial(partial(run.trainer, keep=False), options.total_steps)
    if main:
        yield "\n".join(lines)


def refuse_options(args: argparse.Namespace, profile: Profile) -> None:
    """TrainingError if an option of published parts is given with one of StoryWorld's profiles."""
    if given := [name for name in OPTIONS if getattr(args, name)]:
        option = f"--{given[0].replace('_', '-')}"
        raise TrainingError(
            f"{option} is of profiles with published parts, and {profile.name} learns from StoryWorld; leave it out"
        )
