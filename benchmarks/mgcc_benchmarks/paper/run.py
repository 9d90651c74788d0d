"""One run from the command line's options to its result: draw the missing pictures, score those that exist."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgcc_benchmarks.commandline import ItemProgress
from mgcc_benchmarks.paper.drawing import PICTURES, Draughtsman, Shard, begin_run, drawings, read_run
from mgcc_benchmarks.paper.items import Item
from mgcc_benchmarks.paper.likeness import ClipSimilarity, Likeness, Lpips
from mgcc_benchmarks.paper.painters import Asked, BundlePainter, Painter, ReferencePainter
from mgcc_benchmarks.paper.protocol import OF_SCORES, Protocol, to_json
from mgcc_benchmarks.paper.published_figures import obstacles, table
from mgcc_benchmarks.paper.scoring import CLIP, LPIPS, SECOND_CLIP, ScoreCache, Scored, Scorer, summarise
from mgcc_runtime.files import write_atomically
from mgcc_runtime.machine import describe_machine

RESULT_FILE = "result.json"
GILLS_NUMBERS = {"steps": 50, "guidance": 7.5, "seed": 42}


@dataclass(frozen=True)
class Task:
    """The work of a run: a benchmark's items in a setting, by a protocol."""

    name: str
    setting: str
    protocol: Protocol
    gill: Protocol
    items: Sequence[Item]
    of: int  # items that the file has
    setting_is_last: bool  # whether this setting shows the whole context

    def to_json(self) -> dict[str, Any]:
        return {"benchmark": self.name, "setting": self.setting, "protocol": to_json(self.protocol)}

    def pictures_to_json(self) -> dict[str, Any]:
        """Identifies a folder of pictures, without scoring and number of items, so that a longer run can extend it."""
        switches = {name: value for name, value in to_json(self.protocol).items() if name not in OF_SCORES}
        return {**self.to_json(), "protocol": switches}


def run(task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """Draw and score; the result is also in the folder, unless this is one shard of several."""
    likenesses = _likenesses(options)  # before hours of drawing: a file may be missing
    shard: Shard = options.shard
    left_out = {} if options.drawn else _draw(task, options)
    result: dict[str, Any] = {**task.to_json(), "items": len(task.items), "shard": str(shard)}
    skipped = {item.name: item.skipped for item in task.items if item.skipped}
    scores: dict[str, Scored] = {}
    if likenesses:
        cache = ScoreCache(options.out, f"{shard.number}-of-{shard.of}")
        scorer = Scorer(likenesses, task.protocol, options.out / PICTURES, cache)
        mine = shard.results(task.items)
        items = [item for item in task.items if item.result in mine]
        tallies, broken = scorer.tallies(items, ItemProgress("pairs").show)
        scores = summarise(tallies, task.protocol, options.seed)
        left_out = {**left_out, **broken}
    told = {name: likeness.told for name, likeness in likenesses.items()}
    against = [*_obstacles(task, options), *obstacles(task.protocol, task.gill, told)]
    result |= {
        "scores": {name: scored.to_json() for name, scored in scores.items()}, "skipped": skipped,
        "left_out": left_out, "likenesses": told, "differs_from_published": against,
        "seed": options.seed, "machine": describe_machine(),
        "table": table(task.name, task.setting, scores, against) if scores and shard.of == 1 else "",
    }  # fmt: skip
    if shard.of == 1:
        write_atomically(options.out / RESULT_FILE, (json.dumps(result, indent=2) + "\n").encode())
    return result


def _draw(task: Task, options: argparse.Namespace) -> dict[str, str]:
    with ExitStack() as stack:
        painter = stack.enter_context(_painter(options))
        drawn_by = {"painter": painter.identity, "seed": options.seed, **painter.numbers}
        begin_run(options.out, {**task.pictures_to_json(), **drawn_by})
        worker = Draughtsman(painter, task.protocol, options.out / PICTURES)
        wanted = drawings(task.items, task.protocol.noise, options.seed)
        mine = options.shard.results(task.items)
        return worker.draw_all({n: d for n, d in wanted.items() if n in mine}, ItemProgress().show)


def _obstacles(task: Task, options: argparse.Namespace) -> Iterator[str]:
    if not task.setting_is_last:
        yield "the published figures are taken to be of the whole context"
    if len(task.items) != task.of:
        yield f"{len(task.items)} of {task.of} items"
    told = read_run(options.out)  # empty for pictures that others drew
    for name, usual in GILLS_NUMBERS.items():
        if (value := told.get(name, usual)) != usual:
            yield f"{name} {value}, where GILL has {usual:g}"


def _painter(options: argparse.Namespace) -> Painter:
    asked = Asked(options.steps, options.guidance, options.boxes)
    if options.bundle is not None:
        return BundlePainter(options.bundle, asked, options.threads)
    weights = options.weights if options.weights in (None, "random") else Path(options.weights)
    return ReferencePainter(options.profile, weights, asked)


def _likenesses(options: argparse.Namespace) -> dict[str, Likeness]:
    found: dict[str, Likeness] = {}
    if options.clip is not None:
        found[CLIP] = ClipSimilarity(options.clip)
    if options.second_clip is not None:
        found[SECOND_CLIP] = ClipSimilarity(options.second_clip)
    if options.alexnet is not None:
        found[LPIPS] = Lpips(options.alexnet, options.lpips_heads)
    return found
