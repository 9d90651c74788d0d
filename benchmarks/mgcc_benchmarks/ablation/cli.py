"""`python benchmarks/ablation.py`: trains the arms, draws with each, and writes table and figure."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgcc_benchmarks.ablation.arms import ArmsPainter
from mgcc_benchmarks.ablation.records import ItemRecords, draw_items
from mgcc_benchmarks.ablation.report import PUBLISHED, chart, markdown_report, summarise_arms, training_report
from mgcc_benchmarks.ablation.settings import drawing_settings, hashes, reading_files
from mgcc_benchmarks.ablation.train import CommonStart, TrainingSteps, train_arms
from mgcc_benchmarks.commandline import RESULTS, ItemProgress
from mgcc_benchmarks.storybench.evaluation import Plan
from mgcc_benchmarks.storybench.evaluator import find_likeness
from mgcc_ref.config import get_profile
from mgcc_ref.story.bench import SETTINGS, Suite, setting_of
from mgcc_ref.weights import WeightsError
from mgcc_runtime.commands.console import Parser, command, give_json, note
from mgcc_runtime.errors import EXIT_DONE, InputError
from mgcc_runtime.files import check_output, write_atomically
from mgcc_runtime.machine import describe_machine

FOLDER = Path("runs/story")  # the trainer's own, which holds contexts and features once its steps have run


@command("ablation.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, measure, write; returns the exit code (see `mgcc_runtime.commands.console`)."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    out = options.out or RESULTS / f"ablation-{options.suite.value}.json"
    try:
        check_output(out, ".json")
        options.folder.mkdir(parents=True, exist_ok=True)
        profile = get_profile("story")
        extra = ("--precision", options.precision)
        steps = TrainingSteps(options.align_steps, options.grounder_steps, options.caption_unet_steps)
        start = CommonStart(profile.weights_folder, extra, hashes(reading_files(profile)))
        train_arms(options.folder, options.seeds, steps, start, _say)
        if options.train_only:
            return EXIT_DONE
        result = _measure(options)
        write_atomically(out, (json.dumps(result, indent=2) + "\n").encode())
        title = f"StoryBench {result['suite']}, {result['items']} items, {len(options.seeds)} seeds"
        chart(result, title).savefig(out.with_suffix(".png"), dpi=110)
        report = f"{markdown_report(result)}\n{training_report(result)}"
        write_atomically(out.with_suffix(".md"), report.encode())
    except WeightsError as error:
        raise InputError(str(error)) from None
    give_json(result) if options.json else note(f"{report}\n{out}, .md and .png")
    return EXIT_DONE


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="ablation.py", description="GILL, + CMRM, + COGM, both: same data, same steps.")
    usual = get_profile("story").sampler.default_steps
    parser.add_argument("--suite", type=Suite, choices=list(Suite), default=Suite.STORIES, metavar="|".join(Suite))
    parser.add_argument("--items", type=int, default=500, metavar="N", help="pictures an arm and seed (default: 500)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="(default: 0 1 2)")
    parser.add_argument("--steps", type=int, default=usual, metavar="N", help=f"denoising steps (default: {usual})")
    parser.add_argument(
        "--folder",
        type=Path,
        default=FOLDER,
        metavar="DIR",
        help=f"of runs and records, which reads what the trainer has read there (default: {FOLDER})",
    )
    every = TrainingSteps()
    parser.add_argument("--align-steps", type=int, default=every.align, metavar="N", help=f"(default: {every.align})")
    parser.add_argument(
        "--grounder-steps", type=int, default=every.grounder, metavar="N", help=f"(default: {every.grounder})"
    )
    steps = every.caption_unet
    parser.add_argument("--caption-unet-steps", type=int, default=steps, metavar="N", help=f"(default: {steps})")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of training (default: fp32)")
    parser.add_argument("--train-only", action="store_true", help="train the arms and stop")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also writes .md and .png (default: results/)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    trained = options.align_steps, options.grounder_steps, options.caption_unet_steps
    counts = options.items, options.steps, *trained
    if min(counts) < 1 or min(options.seeds) < 0 or len(set(options.seeds)) < len(options.seeds):
        parser.error("--items and all steps must be at least 1, --seeds different numbers from 0 up")
    return options


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    setting = setting_of(options.suite, SETTINGS[options.suite][-1].value)
    plan = Plan(options.suite, setting, options.items, seed=0, words=0)
    painter = ArmsPainter(options.folder, options.seeds, steps=options.steps)
    settings = drawing_settings(plan, painter)
    kept = ItemRecords(options.folder / f"records-{options.suite.value}-{options.steps}.jsonl", settings)
    items = draw_items(plan, painter, find_likeness(), kept, ItemProgress().show)
    told = {"suite": options.suite.value, "setting": setting.value, "items": options.items, "seeds": options.seeds}
    published = {"paper_clip_similarity": PUBLISHED[options.suite.value]}
    steps = {"align": options.align_steps, "grounder": options.grounder_steps}
    trained = {"trained_parameters": painter.parameters(), "training_steps": steps}
    summary = summarise_arms(items)
    run = {"drawn_with": settings, "machine": describe_machine()}
    return {**told, "steps": options.steps, **trained, **summary, **published, **run}
