"""`python -m mgcc_ref.train --profile story --step vae`: train one step, or go on with it after a kill."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState

from mgcc_ref.config import PROFILE_NAMES, LayoutPainter, Profile, Refinement, get_profile, profile_argument
from mgcc_ref.story.bench_evaluator import EVALUATOR_FILE
from mgcc_ref.train.errors import TrainingError
from mgcc_ref.train.loop import LoopOptions, Trainer, TrainingPrecision, TrainingStep
from mgcc_ref.train.processes import is_one_of_several, train_in
from mgcc_ref.train.published.command import (
    add_options,
    is_published,
    refuse_options,
    train_published,
    what_it_takes,
)
from mgcc_ref.train.steps.denoising import USUAL, SetSize
from mgcc_ref.weights import WeightsError
from mgcc_runtime.commands.console import command, give, note
from mgcc_runtime.errors import EXIT_DONE, InputError, MgccError


def _vae(profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision) -> TrainingStep:
    from mgcc_ref.train.steps.vae import VaeStep

    return VaeStep(profile)


def _decoder(profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision) -> TrainingStep:
    from mgcc_ref.train.steps.vae import DecoderStep

    return DecoderStep(profile, weights)


def _clip(profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision) -> TrainingStep:
    from mgcc_ref.train.steps.clip import ClipStep

    return ClipStep(profile)


def _unet(
    profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision, size: SetSize = USUAL
) -> TrainingStep:
    from mgcc_ref.train.steps.unet import UNetStep

    return UNetStep(profile, weights, run_folder, size)


def _caption_unet(profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision) -> TrainingStep:
    from mgcc_ref.train.steps.caption_unet import CaptionUNetStep

    return CaptionUNetStep(profile, weights, run_folder)


def _align(profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision) -> TrainingStep:
    from mgcc_ref.train.steps.align import AlignStep

    return AlignStep(profile, weights, run_folder, precision)


def _grounder(
    profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision, conversations: int = 0
) -> TrainingStep:
    from mgcc_ref.train.steps.grounder import GrounderStep

    return GrounderStep(profile, weights, run_folder, precision, conversations)


def _fresh_grounder(
    profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision, batch_size: int | None = None
) -> TrainingStep:
    from mgcc_ref.train.steps.fresh_grounder import FreshGrounderStep

    return FreshGrounderStep(profile, weights, batch_size)


def _student(
    profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision, size: SetSize = USUAL
) -> TrainingStep:
    from mgcc_ref.train.steps.student import StudentStep

    return StudentStep(profile, weights, run_folder, precision, size)


def _evaluator(profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision) -> TrainingStep:
    from mgcc_ref.train.steps.evaluator import EvaluatorStep

    return EvaluatorStep()


def _draw(profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision) -> TrainingStep:
    from mgcc_ref.train.steps.draw import DrawStep

    return DrawStep(profile, weights, run_folder, precision)


#: In the order of dependence: `decoder` needs `vae`; `unet` needs `vae` and `clip`; `align` and `grounder` need `clip`;
#: `student` and `caption_unet` need `unet`. `draw` and `evaluator` need nothing. Only StoryBench uses `evaluator`, and
#: only the ablation uses `caption_unet`.
STEPS: dict[str, tuple[Callable[[Profile, Path, Path, TrainingPrecision], TrainingStep], LoopOptions]] = {
    "vae": (_vae, LoopOptions(total_steps=2600, learning_rate=1.5e-3)),
    "decoder": (_decoder, LoopOptions(total_steps=1000, learning_rate=8e-4)),
    "clip": (_clip, LoopOptions(total_steps=1700, learning_rate=1e-3, ema_decay=0.99)),
    "unet": (_unet, LoopOptions(total_steps=4800, learning_rate=6e-4, evaluate_every_steps=600)),
    "caption_unet": (_caption_unet, LoopOptions(total_steps=1400, learning_rate=6e-4, evaluate_every_steps=350)),
    "student": (_student, LoopOptions(total_steps=1500, learning_rate=3e-4, evaluate_every_steps=250)),
    "align": (_align, LoopOptions(total_steps=1200, learning_rate=5e-4, ema_decay=0.99, evaluate_every_steps=200)),
    "draw": (_draw, LoopOptions(total_steps=600, learning_rate=5e-3, ema_decay=0.99, evaluate_every_steps=100)),
    "grounder": (
        _grounder,
        LoopOptions(total_steps=3000, learning_rate=6e-4, ema_decay=0.995, evaluate_every_steps=500),
    ),
    "evaluator": (_evaluator, LoopOptions(total_steps=600, learning_rate=1.5e-3, ema_decay=0.99)),
}

_NAME = "python -m mgcc_ref.train"
LAST_SET = 4  # number of the last set of the grounder's conversations


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_NAME, description=__doc__)
    parser.add_argument(
        "--profile", default="story", type=profile_argument, metavar="NAME|FILE.json", help=", ".join(PROFILE_NAMES)
    )
    parser.add_argument("--step", required=True, choices=list(STEPS))
    parser.add_argument("--steps", type=int, help="number of optimiser steps (default: the step's own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--learning-rate", type=float, metavar="R",
        help="after the warm-up (default: the step's own)",
    )  # fmt: skip
    parser.add_argument("--run", type=Path, help="folder of the run (default: runs/PROFILE/STEP)")
    parser.add_argument("--weights", type=Path, help="folder that takes the weights (default: the profile's own)")
    parser.add_argument("--cmrm-blocks", type=int, metavar="N", help="blocks of the cross-modal refinement; 0 is GILL")
    parser.add_argument(
        "--refinement", type=Refinement, choices=[Refinement.CMRM, Refinement.UNORDERED],
        metavar="{cmrm,cmrm-unordered}", help="of the [IMG] tokens' features (default: the profile's)",
    )  # fmt: skip
    parser.add_argument(
        "--painter", type=LayoutPainter, choices=list(LayoutPainter), metavar="{fourier,textures}",
        help="what paints the layout map of step `unet`; with --go-on it may differ from that of the weights",
    )  # fmt: skip
    parser.add_argument(
        "--conversations",
        type=int,
        default=0,
        metavar="N",
        help="which set of conversations the grounder reads: 0 (default) to 4",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N",
        help="default: 32, 256 with --fresh; with published parts 200 (align) and 64 (grounder) over all processes",
    )  # fmt: skip
    parser.add_argument(
        "--scenes", type=int, metavar="N", help="what steps unet and student learn from (default: 40000 and 2400)"
    )
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N",
        help="processes that train together, each with its own batches and one thread (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N",
        help="processes that draw batches ahead, for a GPU that would wait for them; of unet, student and --fresh",
    )  # fmt: skip
    parser.add_argument(
        "--fresh", action="store_true",
        help="step grounder reads conversations as it goes, each one once, which wants a GPU, instead of a kept set",
    )  # fmt: skip
    parser.add_argument(
        "--go-on", action="store_true", help="with no checkpoint in the run's folder, start from the step's own weights"
    )
    parser.add_argument(
        "--precision", type=TrainingPrecision, choices=list(TrainingPrecision), metavar="{fp32,bf16}",
        help="bf16 is faster on a device with bf16 arithmetic (default: fp32, with published parts bf16)",
    )  # fmt: skip
    add_options(parser)
    return parser


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(arguments)
    args.size = size = SetSize(args.batch_size, args.scenes)
    published = is_published(get_profile(args.profile))
    if (args.conversations and args.step != "grounder") or not 0 <= args.conversations <= LAST_SET:
        parser.error(f"--conversations is {args.conversations}, expected 0 to {LAST_SET}, and 0 but for the grounder")
    if args.fresh and (args.step != "grounder" or args.conversations or size.scenes):
        parser.error("--fresh is of step grounder, with no --conversations and no --scenes")
    if args.step not in ("unet", "student") and not (args.fresh or published) and (size != USUAL or args.workers):
        parser.error(f"--batch-size, --scenes and --workers are of unet, student and --fresh, not of {args.step}")
    if args.learning_rate is not None and (published or not 0 < args.learning_rate < 1):
        parser.error(f"--learning-rate is {args.learning_rate}, expected 0 to 1, and none with published parts")
    numbers = {"--batch-size": size.batch, "--scenes": size.scenes, "--micro-batch": args.micro_batch}
    numbers |= {"--workers": args.workers, "--processes": args.processes}
    for name, value in numbers.items():
        if value is not None and value < (name != "--workers"):
            parser.error(f"{name} is {value}, expected a positive number")
    return args


@command(_NAME, "; the last checkpoint is kept, run the same command to go on")
def main(arguments: Sequence[str] | None = None) -> int:
    """Train a step and save its weights; returns the exit code (see `mgcc_runtime.commands.console`)."""
    args = _parse(arguments)
    if args.processes > 1 and not is_one_of_several():
        return train_in(args.processes, sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    try:
        _train(args)
    except (WeightsError, TrainingError) as error:
        raise InputError(str(error)) from error
    except FloatingPointError as error:  # of the loss
        raise MgccError(str(error)) from error
    return EXIT_DONE


def _train(args: argparse.Namespace) -> None:
    profile = get_profile(args.profile)
    asked = {"cmrm_blocks": args.cmrm_blocks, "refinement": args.refinement}
    profile = replace(
        profile, refiner=replace(profile.refiner, **{name: value for name, value in asked.items() if value is not None})
    )
    if is_published(profile) and args.step != "evaluator":
        for text in what_it_takes(args, profile) if args.dry_run else ():
            give(text)
        _say(() if args.dry_run else train_published(args, profile))
        return
    refuse_options(args, profile)
    precision = args.precision or TrainingPrecision.FP32
    own_folder = EVALUATOR_FILE.parent if args.step == "evaluator" else profile.weights_folder
    if args.painter is not None:
        profile = replace(profile, unet=replace(profile.unet, painter=args.painter))
    weights = args.weights or own_folder
    run_folder = args.run or Path("runs") / profile.name / args.step
    torch.manual_seed(args.seed)
    build, options = STEPS[args.step]
    if args.conversations:
        build = partial(_grounder, conversations=args.conversations)
    if args.fresh:
        build = partial(_fresh_grounder, batch_size=args.size.batch)
    elif args.size != USUAL:
        build = partial(_unet if args.step == "unet" else _student, size=args.size)
    options = replace(
        options,
        workers=args.workers,
        seed=args.seed,
        learning_rate=args.learning_rate or options.learning_rate,
        total_steps=options.total_steps if args.steps is None else args.steps,
        precision=precision,
    )
    with PartialState().main_process_first():  # one process fills the caches that all processes read
        step = build(profile, weights, run_folder, precision)
    if args.go_on and not (run_folder / "checkpoint.pt").exists():
        step.load_weights(weights)
    trainer = Trainer(step, options, run_folder)
    trainer.run()
    if trainer.accelerator.is_main_process:
        _say(trainer.save_weights(weights))


def _say(written: Iterable[Path]) -> None:
    for path in written:
        note(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main())
