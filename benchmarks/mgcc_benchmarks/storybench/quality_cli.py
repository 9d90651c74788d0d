"""`python benchmarks/quality.py`: how right the pictures are. The only module of StoryBench that prints."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mgcc_benchmarks.commandline import ITEMS, RESULTS, ItemProgress
from mgcc_benchmarks.storybench.contact_sheet import contact_sheet
from mgcc_benchmarks.storybench.evaluation import (
    Plan,
    Record,
    check_same_items,
    compare,
    counts,
    read_kept,
    redraw,
    run_plan,
    summarise,
    worst,
)
from mgcc_benchmarks.storybench.evaluator import find_likeness
from mgcc_benchmarks.storybench.looks import Asked, add_look_options, begin_look, end_look
from mgcc_benchmarks.storybench.painters import (
    BundlePainter,
    Drawn,
    Oracle,
    Painter,
    ReferencePainter,
    TruthPainter,
    bundle_identity,
)
from mgcc_benchmarks.storybench.reader_ceiling import measure_ceiling, spoilings
from mgcc_benchmarks.storybench.workers import scored_by_workers
from mgcc_ref.config import PROFILE_NAMES, get_profile
from mgcc_ref.story.bench import SETTINGS, AnyItem, Suite, setting_of
from mgcc_ref.story.free_english import FreeSetting, free_items
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.weights import WeightsError
from mgcc_runtime import Pipeline
from mgcc_runtime.bundle.folder import read_manifest
from mgcc_runtime.commands.console import Parser, command, give_json
from mgcc_runtime.errors import EXIT_DONE, BundleError, InputError
from mgcc_runtime.files import check_output, write_atomically
from mgcc_runtime.machine import describe_machine
from mgcc_runtime.names import GOLDEN, MANIFEST
from mgcc_runtime.options import SEED, STEPS, THREADS, WORDS

_LONGEST_SHEET = 40  # rows: an image of some 12,000 pixels' height


@command("quality.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code (see `mgcc_runtime.commands.console`)."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        for path, suffix in ((options.sheet, ".png"), (options.out, ".json")):
            if path is not None:
                check_output(path, suffix)
        result = _ceiling(options) if options.ceiling else _measure(options)
        path = options.out or RESULTS / _default_name(options)
        _store(path, result)
    except WeightsError as error:
        raise InputError(str(error)) from None
    shown = {name: value for name, value in result.items() if name in _SHOWN}
    give_json(shown) if options.json else _print_table(shown, options.split, path)
    return EXIT_DONE


_SHOWN = ("suite", "setting", "items", "scores", "against", "ceiling")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="quality.py", description="StoryBench: draws held-back stories and reads the pictures.")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="the bundle's folder")
    parser.add_argument("--suite", type=Suite, choices=list(Suite), default=Suite.STORIES, metavar="|".join(Suite))
    parser.add_argument(
        "--setting", help="how much is shown (default: all of it): 1, 5, 5+4, or 1, 5, 10 rounds; free: a kind"
    )
    add_look_options(parser)
    ITEMS.add_to(parser, 500, "pictures (default: 500)")
    SEED.add_to(parser, 0, "of items and noise (default: 0)")
    WORDS.add_to(parser, 16, "of text to score; 0: none (default: 16)")
    STEPS.add_to(parser, None, "of denoising (default: the bundle's or profile's own)")
    THREADS.add_to(parser, 0, "of one stage; 0: one each core (default)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes over a bundle (default: 1)")
    parser.add_argument("--reference", action="store_true", help="draw with mgcc_ref instead of a bundle")
    parser.add_argument("--profile", default="story", choices=PROFILE_NAMES, help="of --reference (default: story)")
    parser.add_argument("--weights", metavar="DIR|random", help="of --reference and --ceiling (default: the profile's)")
    oracles = [Oracle.BOXES, Oracle.BOXES_AND_CAPTION]
    parser.add_argument(
        "--oracle", type=Oracle, choices=oracles, metavar="boxes|boxes+caption",
        help="give the true boxes; with --reference also the true caption, so that the drawing alone is judged",
    )  # fmt: skip
    parser.add_argument("--ceiling", action="store_true", help="draw nothing: measure the reader on true pictures")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="write a picture of the first items")
    parser.add_argument("--worst", type=int, metavar="N", help="the sheet shows the worst N instead")
    parser.add_argument("--resume", type=Path, metavar="FILE.jsonl", help="keep records there; go on from them")
    parser.add_argument(
        "--against", type=Path, metavar="FILE.jsonl", help="compare with that run's --resume file, item by item"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where the result goes (default: results/)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not options.ceiling and options.reference == (options.bundle is not None):
        parser.error("give either --bundle DIR or --reference (or --ceiling)")
    if options.workers < 1 or (options.workers > 1 and options.bundle is None):
        parser.error("--workers must be at least 1, and more than one need --bundle DIR")
    if options.ceiling and options.against is not None:
        parser.error("--against compares drawn pictures, and --ceiling draws none; leave one of them out")
    if options.worst is not None and (options.sheet is None or not 1 <= options.worst <= _LONGEST_SHEET):
        parser.error(f"--worst takes 1 to {_LONGEST_SHEET} and needs --sheet FILE.png")
    if options.suite is Suite.FREE and (options.ceiling or options.oracle):
        parser.error("items of suite free have no single true picture, for --ceiling or --oracle; leave it out")
    if options.oracle is Oracle.BOXES_AND_CAPTION and not options.reference:
        parser.error("--oracle boxes+caption needs the text tower, which no bundle has; give --reference")
    _check_split(parser, options)
    try:
        options.setting = setting_of(options.suite, options.setting or SETTINGS[options.suite][-1].value)
    except ValueError as error:
        parser.error(str(error))
    return options


def _check_split(parser: Parser, options: argparse.Namespace) -> None:
    if options.split is Split.VALIDATION and options.look_again:
        parser.error("--look-again is of --split test; leave it out")
    if options.split is Split.TEST and (options.suite is Suite.FREE or options.ceiling):
        what = "suite free is validation" if options.suite is Suite.FREE else "--ceiling judges no weights"
        parser.error(f"{what} and has no test split; leave --split out")


def _plan(options: argparse.Namespace) -> Plan:
    items = options.items
    if isinstance(options.setting, FreeSetting):  # as many as were written
        items = min(items, len(free_items(options.setting)))
    return Plan(options.suite, options.setting, items, options.seed, options.words, options.split)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    plan, oracle = _plan(options), options.oracle or Oracle.NOTHING
    other = read_kept(options.against, "--against") if options.against is not None else None
    if other is not None:  # now, and not after hours of drawing
        check_same_items(plan, other)
    with ExitStack() as stack:
        painter: Painter
        told: dict[str, Any] = {}
        if options.reference:
            painter, scored = ReferencePainter(options.profile, options.weights, oracle, options.steps), None
        else:
            late = LateBundlePainter(options.bundle, oracle, options.steps, options.threads)
            painter, scored = stack.enter_context(late), _workers(options, late)
            told = {"scored": late.described}
        look = None
        if plan.split is Split.TEST:
            kept, why = options.resume, options.look_again
            look = begin_look(options.looks, Asked.of(plan), painter.identity, kept=kept, why_again=why)
        records = run_plan(
            plan, painter, find_likeness(), kept=options.resume, progress=ItemProgress().show, scored=scored
        )
        if look is not None:
            found = summarise(plan, records)["scores"]
            end_look(options.looks, look, len(records), {name: score["value"] for name, score in found.items()})
        if options.sheet is not None:
            numbers = worst(records, options.worst) if options.worst else range(min(options.items, 10))
            contact_sheet(redraw(plan, painter, numbers)).save(options.sheet)
        identity = plan.identity(painter)
    if other is not None:
        told["against"] = compare(plan, records, other)
    run = {"counted": counts(records), "run": identity, "machine": describe_machine()}
    return {**summarise(plan, records), **told, **run}


class LateBundlePainter:
    """A bundle that is opened at its first picture: where all records exist, its manifest is enough."""

    def __init__(self, root: Path, oracle: Oracle, steps: int | None, threads: int) -> None:
        """BundleError if there is no manifest to read."""
        self._root, self._oracle, self._steps, self._threads = root, oracle, steps, threads
        self._opened: BundlePainter | None = None
        self.described = describe_bundle(root)
        self.identity = bundle_identity(read_manifest(root), oracle, steps)

    def __enter__(self) -> LateBundlePainter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.pipeline.close()

    def open(self) -> BundlePainter:
        """The painter itself. BundleError or EngineError if the bundle cannot be used, or has changed since."""
        if self._opened is None:
            pipeline = Pipeline.load(self._root, threads=self._threads)
            self._opened = BundlePainter(pipeline, self._oracle, self._steps)
            if self._opened.identity != self.identity:
                raise BundleError(
                    f"bundle {self._root} is now {self._opened.identity!r}, it was {self.identity!r} when this run "
                    "started; start again"
                )
        return self._opened

    def draw(self, item: AnyItem, *, seed: int, words: int) -> Drawn:
        return self.open().draw(item, seed=seed, words=words)


def describe_bundle(root: Path) -> dict[str, Any]:
    """The scored bundle, by its manifest: profile, kind of weights, and each stage's precision and SHA-256.

    `files` are all others that pictures depend on, such as weights beside their graph, without the golden answers.
    """
    manifest = read_manifest(root)
    hashes = {name: entry.sha256 for name, entry in manifest.files.items() if not name.startswith(GOLDEN)}
    graphs = {
        name: {"file": g.file, "engine": g.engine, "precision": g.precision, "sha256": hashes.get(g.file)}
        for name, g in manifest.graphs().items()
    }
    of_graphs = {graph["file"] for graph in graphs.values()}
    return {
        "profile": manifest.profile,
        "target": manifest.target,
        "weights": manifest.weights,
        "manifest_sha256": hashlib.sha256((root / MANIFEST).read_bytes()).hexdigest(),
        "stages": graphs,
        "files": {name: digest for name, digest in sorted(hashes.items()) if name not in of_graphs},
    }


def _workers(
    options: argparse.Namespace, painter: LateBundlePainter
) -> Callable[[Sequence[int]], Iterator[Record]] | None:
    """A function that scores items in several processes, each with its share of the cores; None for one process."""
    if options.workers == 1:
        return None
    threads = options.threads or max(1, (os.cpu_count() or 1) // options.workers)
    oracle = options.oracle or Oracle.NOTHING
    in_pool = scored_by_workers(
        _plan(options), options.bundle, oracle, options.steps, workers=options.workers, threads=threads
    )

    def scored(numbers: Sequence[int]) -> Iterator[Record]:
        if numbers:
            painter.open()  # a bundle that cannot be used gives one sentence here, and not a broken pool
            yield from in_pool(numbers)

    return scored


def _ceiling(options: argparse.Namespace) -> dict[str, Any]:
    plan = _plan(options)
    folder = Path(options.weights) if options.weights else get_profile("story").weights_folder
    scenes = [plan.item(number).target for number in range(plan.items)]
    found = measure_ceiling(scenes, spoilings(folder), seed=plan.seed, progress=ItemProgress().show)
    if options.sheet is not None:
        contact_sheet(redraw(plan, TruthPainter(), range(min(options.items, 10)))).save(options.sheet)
    told = {"suite": plan.suite.value, "setting": plan.setting.value, "items": plan.items}
    return {**told, "ceiling": found, "machine": describe_machine()}


def _default_name(options: argparse.Namespace) -> str:
    if options.ceiling:
        return "quality-ceiling.json"
    drawn_by = f"reference-{options.profile}" if options.reference else options.bundle.resolve().name
    oracle = ("-test" if options.split is Split.TEST else "") + (
        f"-oracle-{options.oracle.value}" if options.oracle else ""
    )
    steps = f"-{options.steps}-steps" if options.steps else ""
    name = f"quality-{drawn_by}-{options.suite.value}-{options.setting.value}{oracle}{steps}"
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", name) + ".json"


def _store(path: Path, result: dict[str, Any]) -> None:
    """Machine and run beside the scores: figures without them mean little."""
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())


def _print_table(result: dict[str, Any], split: Split, path: Path) -> None:
    print(
        f"{result['suite']}, setting {result['setting']}, {split} split, {result['items']} items; whole result: {path}"
    )
    tables = result.get("ceiling") or {"": result["scores"]}
    for heading, scores in tables.items():
        print(heading or "score")
        for name, score in scores.items():
            low, high = score["ci95"]
            value = "not measured" if score["value"] is None else f"{score['value']:8.4f}  [{low:.4f}, {high:.4f}]"
            print(f"  {name:20} {value}")
    if "against" in result:
        _print_against(result["against"])


def _print_against(against: dict[str, Any]) -> None:
    print(f"this run minus {against['records']} ({against['run'].get('painter')}), the same items")
    for name, score in against["differences"].items():
        low, high = score["ci95"]
        print(f"  {name:20} {score['value']:+8.4f}  [{low:+.4f}, {high:+.4f}]")
    changed = against["whole_scenes"]
    print(f"  whole in this run alone: {changed['only_this']} scenes, in that one alone: {changed['only_that']}")
