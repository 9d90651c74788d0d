"""The command line that both benchmarks share."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from mgcc_benchmarks.commandline import ITEMS
from mgcc_benchmarks.paper.drawing import Shard
from mgcc_benchmarks.paper.protocol import Known, switches_told
from mgcc_benchmarks.paper.run import GILLS_NUMBERS, Task, run
from mgcc_ref.config import PROFILE_NAMES, profile_argument
from mgcc_ref.weights import WeightsError
from mgcc_runtime import BoxMode
from mgcc_runtime.commands.console import Parser, give_json, note
from mgcc_runtime.errors import EXIT_DONE, InputError
from mgcc_runtime.options import GUIDANCE, SEED, STEPS, THREADS


def parse(
    prog: str, what: str, settings: type[StrEnum], protocols: dict[Known, Any], arguments: Sequence[str] | None
) -> argparse.Namespace:
    """The options of `vist.py` or `visdial.py`; `what` names their items. Exits with 2 for bad options."""
    parser = Parser(prog=prog, description=f"Draws the next picture of {what}, and compares it with the true one.")
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE.json", help="the official file")
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="the folder of the data's pictures")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="pictures, scores and result; a "
                        "run that was killed goes on from there")  # fmt: skip
    parser.add_argument("--setting", type=settings, choices=list(settings), default=list(settings)[-1],
                        metavar="|".join(settings), help="how much is shown (default: all)")  # fmt: skip
    parser.add_argument("--protocol", type=Known, choices=list(Known), default=Known.GILL, metavar="|".join(Known),
                        help="(default: gill)")  # fmt: skip
    parser.add_argument("--switch", action="append", default=[], metavar="NAME=VALUE",
                        help=f"one rule of the protocol; {switches_told(protocols)}")  # fmt: skip
    _add_painter(parser)
    ITEMS.add_to(parser, None, "the first N of the file (default: all)")
    parser.add_argument("--shard", type=Shard.parse, default=Shard(), metavar="I/N", help="part I of N, from 1 on")
    SEED.add_to(parser, int(GILLS_NUMBERS["seed"]), "of the noise (default: 42, as GILL's)")
    parser.add_argument("--clip", type=Path, metavar="DIR", help="score with this CLIP: ViT-L/14 in published figures")
    parser.add_argument("--second-clip", type=Path, metavar="DIR", help="and with one that the model does not see by")
    parser.add_argument("--alexnet", type=Path, metavar="FILE.pth", help="and by LPIPS, over torchvision's AlexNet")
    parser.add_argument("--lpips-heads", type=Path, metavar="FILE.pth", help="(default: the installed package lpips)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    ways = [options.bundle is not None, options.reference, options.drawn]
    if sum(ways) != 1:
        parser.error("give one of --bundle DIR, --reference and --drawn")
    if options.lpips_heads is not None and options.alexnet is None:
        parser.error("--lpips-heads go with --alexnet FILE.pth; give that too")
    if options.drawn and options.clip is options.second_clip is options.alexnet is None:
        parser.error("--drawn draws nothing, so there is nothing to do; give --clip, --second-clip or --alexnet")
    return options


def _add_painter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="draw with this bundle")
    parser.add_argument("--reference", action="store_true", help="draw with mgcc_ref")
    parser.add_argument(
        "--drawn", action="store_true", help="draw nothing: score the pictures in DIR/pictures of --out"
    )
    parser.add_argument("--profile", default="gill", type=profile_argument, metavar="NAME|FILE.json",
                        help=f"of --reference (default: gill): {', '.join(PROFILE_NAMES)}")  # fmt: skip
    parser.add_argument("--weights", metavar="DIR|random", help="of --reference (default: the profile's)")
    parser.add_argument("--boxes", type=BoxMode, choices=list(BoxMode), default=BoxMode.AUTO, metavar="auto|none",
                        help="none: draw without a layout, as GILL does (default: auto)")  # fmt: skip
    STEPS.add_to(parser, None, "of denoising (default: the bundle's or profile's own)")
    GUIDANCE.add_to(parser, None, "(default: the bundle's or profile's own)")
    THREADS.add_to(parser, 0, "of one stage of a bundle; 0: one each core (default)")


def finish(options: argparse.Namespace, task: Callable[[], Task]) -> int:
    """Run the task and print; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        result = run(task(), options)
    except WeightsError as error:
        raise InputError(str(error)) from None
    if options.json:
        give_json(result)
    else:
        part = f"{options.out}: shard {options.shard} is done; put all shards' folders together and run without --shard"
        rest = part if options.shard.of > 1 else f"{options.out}: drawn, not scored; give --clip or --alexnet"
        note(result["table"] or rest)
        for title, told in (("skipped", result["skipped"]), ("left out", result["left_out"])):
            if told:
                note(f"{title}: {len(told)} items; whole list: --json")
    return EXIT_DONE
