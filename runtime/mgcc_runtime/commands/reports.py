"""`mgcc info`, `verify` and `bench`: what a bundle is, whether it is right here, and how fast."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mgcc_runtime.commands.console import Progress, give, give_json, note
from mgcc_runtime.commands.draw import add_threads
from mgcc_runtime.errors import EXIT_DONE, EXIT_FAILED
from mgcc_runtime.options import RUNS, STEPS, WARM_UP, WORDS

if TYPE_CHECKING:
    from mgcc_runtime.measure.bench import Asked, Plan


def add_verify(parser: argparse.ArgumentParser) -> None:
    add_threads(parser)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the findings, to send them back")


def add_bench(parser: argparse.ArgumentParser) -> None:
    RUNS.add_to(parser, 30, "timed requests (default: 30)")
    WARM_UP.add_to(parser, 3, "requests before them (default: 3)")
    parser.add_argument(
        "--parts", default="cold,latency,dialogue,scale", metavar="LIST", help="what is measured (default: %(default)s)"
    )
    STEPS.add_to(parser, None, "denoising steps (default: the bundle's)")
    WORDS.add_to(parser, None, "words of text (default: those of the golden request)")
    parser.add_argument("--story", type=Path, metavar="FILE.json", help="time this request (default: the golden one)")
    add_threads(parser)


def what_to_measure(options: argparse.Namespace) -> tuple[Plan, Asked]:
    """What the options of `add_bench` ask for."""
    from mgcc_runtime.measure.bench import Asked, Plan, parse_measures
    from mgcc_runtime.story import read_story

    parts = read_story(options.story) if options.story else None
    plan = Plan(options.runs, options.warm_up, parse_measures(options.parts))
    return plan, Asked(options.steps, options.words, parts)


def info(options: argparse.Namespace) -> int:
    from mgcc_runtime.bundle.folder import Bundle, Check
    from mgcc_runtime.commands.info import info_json, info_lines

    bundle = Bundle.open(options.bundle, Check.SIZES)
    give_json(info_json(bundle)) if options.json else give("\n".join(info_lines(bundle)))
    return EXIT_DONE


def verify(options: argparse.Namespace) -> int:
    from mgcc_runtime.files import check_output, write_atomically
    from mgcc_runtime.measure.verify import Finding, Report, verify as findings_of

    if options.out:
        check_output(options.out, ".json")
    tell = note if options.out else give  # the file has it all
    findings: list[Finding] = []
    for finding in findings_of(options.bundle, options.threads):
        findings.append(finding)
        if not options.json:
            word = "PASS" if finding.passed else "FAIL"
            tell(f"{word}  {finding.name:22} {finding.seconds:6.2f} s  {finding.detail}")
    report = Report(str(options.bundle), tuple(findings))
    if options.out:
        write_atomically(options.out, (json.dumps(report.for_sending(), indent=1) + "\n").encode())
    if options.json:
        give_json(report.to_json())
    else:
        failed = sum(not f.passed for f in findings)
        tell(f"{len(findings) - failed} passed, {failed} failed")
    return EXIT_DONE if report.passed else EXIT_FAILED


def bench(options: argparse.Namespace) -> int:
    from mgcc_runtime.measure.bench import bench as measured
    from mgcc_runtime.measure.bench_table import bench_table

    progress = Progress()
    found = measured(options.bundle, *what_to_measure(options), threads=options.threads, progress=progress.show)
    progress.clear()
    give_json(found) if options.json else give("\n".join(bench_table(found)))
    return EXIT_DONE
