"""`python benchmarks/grounders.py`: both grounders on the same texts, scored as layouts, without drawing.

Texts alone (setting 5 of the stories), since `InContextLayout` reads a caption. Boxes are scored as StoryBench scores
objects that it finds in a picture; the background is no part of a layout.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgcc_benchmarks.bootstrap import Tally, bootstrap
from mgcc_benchmarks.commandline import RESULTS, ItemProgress
from mgcc_benchmarks.storybench.reader import Reading, ReadObject
from mgcc_benchmarks.storybench.scores import tally_scene
from mgcc_ref.config import PROFILE_NAMES
from mgcc_ref.in_context.layout import in_context_layout
from mgcc_ref.model import load_model
from mgcc_ref.pipeline import GroundedObject, ReferencePipeline
from mgcc_ref.story.bench import BenchItem, Suite, bench_item
from mgcc_ref.story.stories import Setting
from mgcc_ref.weights import WeightsError
from mgcc_runtime.commands.console import Parser, command, give_json
from mgcc_runtime.errors import EXIT_DONE, InputError
from mgcc_runtime.files import check_output, write_atomically
from mgcc_runtime.machine import describe_machine

RESULT = RESULTS / "grounders.json"
SCORES = ("object_recall", "object_precision", "position_accuracy", "whole_layout")

Ground = Callable[[BenchItem], Sequence[GroundedObject]]


@dataclass(frozen=True)
class Grounded:
    """One item's tallies by score, and how long it took, reading included."""

    tallies: dict[str, Tally]
    spent_ms: float


def score_layout(item: BenchItem, objects: Sequence[GroundedObject]) -> dict[str, Tally]:
    """SCORES of a layout: the same counts as of a picture in which these objects were read."""
    read = tuple(ReadObject(o.label, o.box, 1.0, 1.0) for o in objects)
    t = tally_scene(item, Reading(read, item.target.background))
    whole = t.found == t.expected and not t.extra and t.placed == t.to_place and not t.unplaced
    return {
        "object_recall": Tally(t.found, t.expected),
        "object_precision": Tally(t.found, t.found + t.extra),
        "position_accuracy": Tally(t.placed, t.to_place),
        "whole_layout": Tally(float(whole), 1.0),
    }


def grounders(profile: str) -> dict[str, Ground]:
    """Both grounders over one model, by the names of their classes."""
    model = load_model(profile)
    pipeline, in_context = ReferencePipeline(model), in_context_layout(model)
    return {
        "LayoutHead": lambda item: pipeline.ground(pipeline.read(item.inputs())).objects,
        "InContextLayout": lambda item: in_context.ground(" ".join(item.texts)),
    }


def measure(ground: Ground, items: Sequence[BenchItem], show: Callable[[int, int], None]) -> dict[str, Any]:
    """Scores with intervals, and the mean time of an item in milliseconds."""
    found = []
    for number, item in enumerate(items, 1):
        started_s = time.perf_counter()
        objects = ground(item)
        found.append(Grounded(score_layout(item, objects), (time.perf_counter() - started_s) * 1e3))
        show(number, len(items))
    scores = {name: bootstrap([g.tallies[name] for g in found]).to_json() for name in SCORES}
    return {"scores": scores, "mean_ms": round(sum(g.spent_ms for g in found) / len(found), 1)}


@command("grounders.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both; returns the exit code (see `mgcc_runtime.commands.console`)."""
    options = _parse(arguments)
    try:
        check_output(options.out, ".json")
        items = [bench_item(Suite.STORIES, Setting.CAPTIONS_5, i) for i in range(options.items)]
        found = {name: measure(g, items, ItemProgress().show) for name, g in grounders(options.profile).items()}
        result = {"profile": options.profile, "items": options.items, "grounders": found, "machine": describe_machine()}
        write_atomically(options.out, (json.dumps(result, indent=2) + "\n").encode())
    except (WeightsError, ValueError) as error:  # ValueError: a model that cannot write layouts
        raise InputError(str(error)) from None
    if options.json:
        give_json(result)
        return EXIT_DONE
    for name, values in found.items():
        print(f"{name}, {values['mean_ms']:.0f} ms an item")
        for score, value in values["scores"].items():
            low, high = value["ci95"]
            shown = "not measured" if value["value"] is None else f"{value['value']:.3f} [{low:.3f}, {high:.3f}]"
            print(f"  {score:20} {shown}")
    return EXIT_DONE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="grounders.py", description="LayoutHead against InContextLayout on texts alone.")
    parser.add_argument("--profile", default="story", choices=PROFILE_NAMES, help="(default: story)")
    parser.add_argument("--items", type=int, default=200, metavar="N", help="stories (default: 200)")
    parser.add_argument("--out", type=Path, default=RESULT, metavar="FILE.json", help="(default: results/)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.items < 1:
        parser.error("--items must be at least 1")
    return options
