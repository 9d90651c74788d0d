"""`python benchmarks/peers.py`: this runtime against others, in turns on one machine."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgcc_benchmarks.commandline import RESULTS, progress
from mgcc_benchmarks.peers.client import ROOT
from mgcc_benchmarks.peers.comparison import Rules, compare
from mgcc_benchmarks.peers.figures import absent_figures, figure_groups, measure_figures
from mgcc_benchmarks.peers.plan import COMPARISONS, NAMES, Comparison, Ours, Peer, Work
from mgcc_benchmarks.peers.quiet_machine import require_quiet, sample_others
from mgcc_benchmarks.peers.ratio import LEAST_DRAWN
from mgcc_benchmarks.peers.report import markdown
from mgcc_benchmarks.peers.results import Results
from mgcc_benchmarks.peers.setup import absence, set_up
from mgcc_benchmarks.peers.work import Amounts, write_work
from mgcc_benchmarks.peers.workspace import FOLDER, Place
from mgcc_ref.config import profile_argument
from mgcc_runtime.bundle.folder import Bundle, sha256_of
from mgcc_runtime.commands.console import Parser, command, give_json, note, say
from mgcc_runtime.device.cpu_features import available_cores
from mgcc_runtime.errors import EXIT_DONE, EXIT_FAILED, BundleError, MgccError, OptionError
from mgcc_runtime.files import check_output
from mgcc_runtime.machine import describe_machine
from mgcc_runtime.measure.power import describe_clocks
from mgcc_runtime.names import MANIFEST
from mgcc_runtime.options import THREADS

BUNDLE = ROOT / "build" / "story-cpu-auto"
WARM_UP_RULE = "the first rounds after loading, both sides in turns as in the counted ones; none of them is counted"
ORDER = "both sides once a round; who goes first changes from round to round"
QUIET, BUSY = "required", "allowed"


@dataclass(frozen=True)
class Settings:
    """A run's options, checked."""

    place: Place
    fast: Path | None
    rules: Rules
    amounts: Amounts
    names: tuple[str, ...]
    others_cores: float | None  # used by other programs before the start
    out: Path


@command("peers.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Set a peer up, or compare, write and print; the exit code is 0 done, 1 failed, 2 bad arguments or input."""
    options = _parse(arguments)
    doing = progress()
    results: Results | None = None
    try:
        if options.set_up:
            said = set_up(Peer(options.set_up), _place(options), doing.show)
            doing.clear()
            print(said)
            return EXIT_DONE
        settings = _settings(options)
        results = Results(settings.out, _head(settings), settings.others_cores)
        run(settings, results, doing.show)
    finally:  # whatever ended it
        doing.clear()
        if results is not None and results.begun and not results.complete:
            say(f"peers.py: {results.kept()}")
    found = results.to_json()
    give_json(found) if options.json else note(f"{markdown(found)}{settings.out}, .md and .png")
    return EXIT_FAILED if results.failed else EXIT_DONE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="peers.py", description="Compares a bundle with others, side by side.")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, metavar="DIR", help="(default: build/story-cpu-auto)")
    parser.add_argument("--profile", type=profile_argument, metavar="FILE.json", help="the bundle's, if it has a file")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="the bundle's (default: the profile's own)")
    parser.add_argument("--fast-bundle", type=Path, metavar="DIR", help="the few-step student's (default: left out)")
    parser.add_argument("--set-up", choices=[p.value for p in Peer], metavar="PEER", help=", ".join(Peer))
    parser.add_argument("--only", metavar="LIST", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="counted rounds (default: 15)")
    parser.add_argument("--warm-up", type=int, default=3, metavar="N", help="rounds before them (default: 3)")
    THREADS.add_to(parser, 0, "of each side; 0: the cores (default)")
    parser.add_argument("--least-ms", type=float, default=300.0, metavar="MS", help="of a side's round (default: 300)")
    amounts = Amounts()
    parser.add_argument("--words", type=int, default=amounts.words, metavar="N", help="of a turn (default: 24)")
    parser.add_argument("--prompt-tokens", type=int, default=amounts.prompt_tokens, metavar="N", help="(default: 100)")
    parser.add_argument("--next-tokens", type=int, default=amounts.next_tokens, metavar="N", help="(default: 32)")
    few = f"(default: 10); a figure of fewer than {LEAST_DRAWN} measurements has no interval"
    parser.add_argument("--dialogues", type=int, default=amounts.dialogues, metavar="N", help=few)
    parser.add_argument(
        "--allow-busy", dest="machine", action="store_const", const=BUSY, default=QUIET,
        help="measure although others use the machine; the result is marked as not quotable",
    )  # fmt: skip
    parser.add_argument("--peers", type=Path, default=FOLDER, metavar="DIR", help="where peers live (build/peers)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also writes .md and .png (default: results/)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    for name, least, most in (
        ("rounds", 2, 10_000), ("warm_up", 0, 1000), ("least_ms", 0, 1e6), ("words", 0, 1000),
        ("prompt_tokens", 2, 100_000), ("next_tokens", 1, 100_000), ("dialogues", 1, 1000),
    ):  # fmt: skip
        if not least <= (value := getattr(options, name)) <= most:
            parser.error(f"--{name.replace('_', '-')} is {value}, expected {least} to {most:g}")
    return options


def _place(options: argparse.Namespace) -> Place:
    if options.bundle == BUNDLE and not BUNDLE.is_dir():
        raise BundleError(
            f"{BUNDLE} is not there; build it with `python export/build_engines.py --profile story --target cpu "
            f"--precision auto --out {BUNDLE}`, or name another with --bundle"
        )
    place = Place(options.peers, Bundle.open(options.bundle), options.profile or "", str(options.weights or ""))
    _ = place.profile  # raises here, and not in each comparison
    return place


def _settings(options: argparse.Namespace) -> Settings:
    name = re.sub(r"[^A-Za-z0-9.+_-]", "_", f"peers-{options.bundle.resolve().name}")
    out = options.out or RESULTS / f"{name}.json"
    check_output(out, ".json")
    place = _place(options)
    names = tuple(part.strip() for part in (options.only or ",".join(NAMES)).split(",") if part.strip())
    if unknown := [name for name in names if name not in NAMES]:
        raise OptionError(f"--only has {', '.join(unknown)}, expected some of {', '.join(NAMES)}; choose from them")
    threads = options.threads or available_cores()
    others = sample_others()
    if options.machine == QUIET:
        require_quiet(others)
    return Settings(
        place, options.fast_bundle, Rules(options.rounds, options.warm_up, threads, options.least_ms),
        Amounts(options.words, options.prompt_tokens, options.next_tokens, options.dialogues), names, others, out,
    )  # fmt: skip


def run(settings: Settings, results: Results, say: Callable[[str], None]) -> None:
    """Measure all parts that `settings` names into `results`, which are written after each part.

    A part that fails, or whose sides do not agree, is listed under "failed", and the run continues.
    """
    place, rules, names = settings.place, settings.rules, settings.names
    with tempfile.TemporaryDirectory(prefix="mgcc-peers-") as folder:
        work = Path(folder)
        results.begin(write_work(work, place.bundle, settings.amounts))
        asked = [c for c in COMPARISONS if c.name in names]
        results.skipped = {c.name: why for c in asked if (why := _why_not(c, settings))}
        results.skipped |= absent_figures(place, names)
        for comparison in asked:
            if comparison.name in results.skipped:
                continue
            try:
                compared = compare(comparison, place, settings.fast, work, rules, say)
            except MgccError as error:
                results.failed[comparison.name] = str(error)
            else:
                results.ratios[comparison.name] = {**compared.to_json(), "aim": comparison.aim}
            results.write()
        groups = figure_groups(place, work, rules, settings.amounts, say)
        for rows, failed in measure_figures(groups, set(names) - set(results.skipped)):
            results.figures |= rows
            results.failed |= failed
            results.write()
    results.complete = True
    results.write()


def _head(settings: Settings) -> dict[str, Any]:
    """The part of the report that is known before anything is measured."""
    rules = settings.rules
    return {
        "machine": {**describe_machine(), "clocks": describe_clocks()}, "bundle": _describe(settings.place.bundle),
        "threads": rules.threads, "runs": rules.rounds, "warm_up": rules.warm_up, "warm_up_rule": WARM_UP_RULE,
        "order": ORDER,
    }  # fmt: skip


def _why_not(comparison: Comparison, settings: Settings) -> str:
    """Why a comparison cannot be made, as one sentence; empty if it can."""
    if comparison.ours is Ours.FEW_STEPS and settings.fast is None:
        return "there is no bundle of the few-step student; train and build it, and give it as --fast-bundle"
    distilled = settings.place.bundle.manifest.dimensions.distilled
    if distilled and comparison.work in (Work.UNET, Work.TURN):
        return "the UNet of --bundle is a student without guidance; give it as --fast-bundle, and its teacher's here"
    return absence(comparison.theirs, settings.place)


def _describe(bundle: Bundle) -> dict[str, Any]:
    """The manifest holds the hash of every file, so its own hash stands for the whole bundle."""
    manifest = bundle.manifest
    return {
        "sha256": sha256_of(bundle.root / MANIFEST), "profile": manifest.profile, "weights": manifest.weights,
        "precision": dict(manifest.precision), "engines": {n: s.engine for n, s in manifest.stages.items()},
        "built_with": dict(manifest.built_with),
    }  # fmt: skip
