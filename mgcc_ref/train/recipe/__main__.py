"""`python -m mgcc_ref.train.recipe --weights DIR`: a whole set of weights from nothing, one step after the other.

Each step is one `python -m mgcc_ref.train`. A stopped run goes on with the same command: finished steps are skipped,
and the step that was stopped resumes from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mgcc_ref.config import get_profile, profile_argument
from mgcc_ref.train.__main__ import main as train
from mgcc_ref.train.loop import TrainingPrecision
from mgcc_runtime.commands.console import command, give, note
from mgcc_runtime.errors import EXIT_DONE, InputError


@dataclass(frozen=True)
class Cost:
    """What a step takes with one thread of a core: data once, then each training step."""

    data_min: float
    step_s: float

    def hours(self, steps: int) -> float:
        return self.data_min / 60 + steps * self.step_s / 3600


@dataclass(frozen=True)
class RecipeStep:
    """One step, and its cost on a CPU with AVX512-BF16 in bf16 and on one with AVX2 alone in fp32."""

    name: str
    steps: int
    bf16: Cost
    fp32: Cost

    def arguments(self, options: argparse.Namespace) -> list[str]:
        """Of `python -m mgcc_ref.train`."""
        return [
            "--profile", options.profile, "--step", self.name, "--seed", str(options.seed),
            "--steps", str(options.steps or self.steps), "--precision", options.precision.value,
            "--weights", str(options.weights), "--run", str(options.run / self.name),
        ]  # fmt: skip


#: In the order of dependence. Costs of `story` with one thread: bf16 from RUNS.md (AMD EPYC with AVX512-BF16), fp32
#: measured over 3 to 5 steps (AMD EPYC with AVX2 alone, 2026-11-30); its data from the time that a part of it took.
#: Those of `draw` are of a whole run in fp32 beside other work, a bound for both.
RECIPE: tuple[RecipeStep, ...] = (
    RecipeStep("clip", 1_700, Cost(0, 1.1), Cost(0, 1.5)),
    RecipeStep("vae", 2_600, Cost(0, 0.72), Cost(0, 2.2)),
    RecipeStep("decoder", 3_000, Cost(0, 0.54), Cost(0, 1.5)),
    RecipeStep("unet", 16_000, Cost(10, 1.3), Cost(20, 2.4)),
    RecipeStep("student", 1_500, Cost(20, 1.5), Cost(48, 2.7)),
    RecipeStep("align", 3_000, Cost(22, 0.66), Cost(32, 1.6)),
    RecipeStep("draw", 600, Cost(26, 0.01), Cost(26, 0.01)),
    RecipeStep("grounder", 8_000, Cost(45, 1.1), Cost(70, 1.9)),
)


def plan(steps: int | None) -> str:
    """The recipe with its costs as a table."""
    lines = [f"{'step':10}{'steps':>8}{'bf16, AVX512-BF16':>20}{'fp32, AVX2':>13}"]
    totals = [0.0, 0.0]
    for step in RECIPE:
        count = steps or step.steps
        hours = step.bf16.hours(count), step.fp32.hours(count)
        totals = [total + more for total, more in zip(totals, hours, strict=True)]
        lines.append(f"{step.name:10}{count:>8,}{hours[0]:>18.1f} h{hours[1]:>11.1f} h")
    lines.append(f"{'all':10}{'':8}{totals[0]:>18.1f} h{totals[1]:>11.1f} h")
    return "\n".join(lines)


@command("recipe", "; run the same command to go on")
def main(arguments: Sequence[str] | None = None) -> int:
    """Train all steps that are not finished; returns the exit code (see `mgcc_runtime.commands.console`)."""
    options = _parse(arguments)
    if options.dry_run:
        give(plan(options.steps))
        return EXIT_DONE
    if any(options.weights.glob("*.safetensors")) and not options.run.exists():
        raise InputError(
            f"folder {options.weights} holds weights, expected none: a set from nothing would go on from them; "
            "name an empty one, or the --run folder of the recipe that wrote them"
        )
    for number, step in enumerate(RECIPE, 1):
        asked = step.arguments(options)
        finished = options.run / step.name / "finished.json"
        if finished.exists() and json.loads(finished.read_text(encoding="utf-8")) == asked:
            note(f"step {number} of {len(RECIPE)}: {step.name} is finished")
            continue
        note(f"step {number} of {len(RECIPE)}: {step.name}")
        if code := train(asked):
            return code
        # with its options: after a trial of few steps, a step is not finished
        finished.write_text(json.dumps(asked) + "\n", encoding="utf-8")
    return EXIT_DONE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mgcc_ref.train.recipe", description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, metavar="DIR", help="an empty folder for the set")
    parser.add_argument("--profile", default="story", type=profile_argument, metavar="NAME")
    parser.add_argument("--run", type=Path, metavar="DIR", help="of checkpoints and data (default: runs/PROFILE-set)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--precision", type=TrainingPrecision, choices=list(TrainingPrecision), default=TrainingPrecision.FP32,
        metavar="{fp32,bf16}", help="bf16 where the CPU has it (default: fp32)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, metavar="N", help="of every step, to try the way (default: their own)")
    parser.add_argument("--dry-run", action="store_true", help="say the steps and their costs, and train nothing")
    options = parser.parse_args(arguments)
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps is {options.steps}, expected a positive number")
    options.run = options.run or Path("runs") / f"{get_profile(options.profile).name}-set"
    return options


if __name__ == "__main__":
    sys.exit(main())
