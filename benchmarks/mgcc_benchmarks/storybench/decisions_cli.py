"""`python benchmarks/decisions.py`: of held-back turns, which the model answers with a picture and which in words.

Through the runtime, as `mgcc chat --draw auto` decides it once the dialogue so far is read. Half of the turns want a
picture; many others mention pictures, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mgcc_benchmarks.bootstrap import NOTHING, Score, Tally, bootstrap
from mgcc_benchmarks.commandline import RESULTS, ItemProgress
from mgcc_benchmarks.storybench.looks import Asked, add_look_options, begin_look, end_look
from mgcc_benchmarks.storybench.painters import Oracle, bundle_identity
from mgcc_ref.story.draw_turns import DrawTurn, make_draw_turn
from mgcc_ref.story.wording.phrases import Split
from mgcc_runtime import Pipeline
from mgcc_runtime.commands.console import Parser, command, give_json
from mgcc_runtime.errors import EXIT_DONE
from mgcc_runtime.files import check_output, write_atomically
from mgcc_runtime.machine import describe_machine
from mgcc_runtime.stopwatch import Stopwatch

RESULT = RESULTS / "decisions.json"
#: Apart from the seeds of training's turns and of the turns that chose its steps.
SEEDS = {Split.VALIDATION: 14_000_029, Split.TEST: 52_800_041}
SCORES = ("right", "drawn_when_asked", "silent_when_not")


def held_back_turns(count: int, split: Split = Split.VALIDATION) -> Iterator[DrawTurn]:
    """Turns in phrasings that training never sees; the same ones every time."""
    for index in range(count):
        yield make_draw_turn(np.random.default_rng([SEEDS[split], index]), split)


def decides_to_draw(pipeline: Pipeline, turn: DrawTurn) -> bool:
    """Whether the model would answer the last of these texts with a picture."""
    prompts = pipeline.prompts
    context = pipeline.read(prompts.build(turn.parts), Stopwatch())
    last = prompts.finish(prompts.draft(turn.parts[-1:]))
    return pipeline.decision.asks(context, last, prompts.closing.length)


def score_decisions(turns: Sequence[DrawTurn], drawn: Sequence[bool]) -> dict[str, Score]:
    """SCORES with their intervals."""
    hits = [Tally(float(d == t.draws), 1.0) for t, d in zip(turns, drawn, strict=True)]
    asked = [hit if t.draws else NOTHING for hit, t in zip(hits, turns, strict=True)]
    unasked = [NOTHING if t.draws else hit for hit, t in zip(hits, turns, strict=True)]
    return dict(zip(SCORES, map(bootstrap, (hits, asked, unasked)), strict=True))


@command("decisions.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code (see `mgcc_runtime.commands.console`)."""
    options = _parse(arguments)
    check_output(options.out, ".json")
    turns, drawn = list(held_back_turns(options.items, options.split)), []
    look = None
    with Pipeline.load(options.bundle, threads=options.threads) as pipeline:
        if options.split is Split.TEST:
            asked = Asked("decisions", "dialogues", 0, options.items)
            painter = bundle_identity(pipeline.bundle.manifest, Oracle.NOTHING, None)
            look = begin_look(options.looks, asked, painter, kept=None, why_again=options.look_again)
        show = ItemProgress("turns").show
        for number, turn in enumerate(turns, 1):
            drawn.append(decides_to_draw(pipeline, turn))
            show(number, len(turns))
        profile = pipeline.bundle.manifest.profile
    scores = score_decisions(turns, drawn)
    if look is not None:
        end_look(options.looks, look, len(turns), {name: score.value for name, score in scores.items()})
    result = {
        "bundle": str(options.bundle),
        "profile": profile,
        "items": options.items,
        "split": options.split.value,
        "scores": {name: score.to_json() for name, score in scores.items()},
        "machine": describe_machine(),
    }
    write_atomically(options.out, (json.dumps(result, indent=2) + "\n").encode())
    if options.json:
        give_json(result)
        return EXIT_DONE
    for name, score in scores.items():
        if score.ci95 is None:
            print(f"{name:18} no such turn among these")
        else:
            print(f"{name:18} {score.value:.3f}  [{score.ci95[0]:.3f}, {score.ci95[1]:.3f}]")
    return EXIT_DONE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="decisions.py", description="Does the model see which turns ask for a picture?")
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="a bundle, best in fp32")
    add_look_options(parser)
    parser.add_argument("--items", type=int, default=500, metavar="N", help="turns (default: 500)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of a stage (default: one each core)")
    parser.add_argument("--out", type=Path, default=RESULT, metavar="FILE.json", help="(default: results/)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.split is Split.VALIDATION and options.look_again:
        parser.error("--look-again is of --split test; leave it out")
    if options.items < 1:
        parser.error("--items must be at least 1")
    return options
