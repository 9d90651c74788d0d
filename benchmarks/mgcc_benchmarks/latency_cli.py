"""`python benchmarks/latency.py`: the runtime's own measurement, kept with its machine, and drawn.

Imports nothing of PyTorch's world: what this process weighs is what the report says a bundle needs.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgcc_benchmarks.commandline import RESULTS, Doing, QuietParser
from mgcc_runtime.console import command, give_json
from mgcc_runtime.errors import EXIT_DONE
from mgcc_runtime.options import RUNS, STEPS, THREADS, WARM_UP, WORDS

_EPILOG = (
    "Percentiles stand only where the runs can carry them: p90 from 10 runs on, p99 from 100; below that the slowest "
    "run is shown (in JSON it stands in their place, and as_max names them). Of cold starts at most 5 are made, of "
    "dialogues 10, of requests at one point of a scale 5. Growth exponents have a range: what is found without any one "
    "of the points. others_cores is what other programs used of the machine meanwhile; more than a tenth of a core is "
    "warned of."
)


@command("latency.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; returns the exit code (see `mgcc_runtime.console`)."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    doing = Doing()
    try:
        found, path = _measure(options, doing)
    finally:
        doing.clear()
    if options.json:
        give_json(found)
        return EXIT_DONE
    from mgcc_runtime.bench_table import bench_table

    print("\n".join(bench_table(found)))
    print(f"{path} and {path.with_suffix('.png').name}")
    return EXIT_DONE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = QuietParser(
        prog="latency.py", description="Times a bundle's requests: cold, warm, in a dialogue, scaled.", epilog=_EPILOG
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle's folder")
    parser.add_argument("--parts", default="cold,latency,dialogue,scale", metavar="LIST", help="(default: %(default)s)")
    RUNS.add_to(parser, 30, "timed requests (default: 30)")
    WARM_UP.add_to(parser, 3, "requests before them (default: 3)")
    STEPS.add_to(parser, None, "denoising steps (default: the bundle's)")
    WORDS.add_to(parser, None, "words of text (default: those of the golden request)")
    parser.add_argument("--story", type=Path, metavar="FILE.json", help="time this request (default: the golden one)")
    THREADS.add_to(parser, 0, "of one stage; 0: one each core (default)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also writes .png (default: results/)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace, doing: Doing) -> tuple[dict[str, Any], Path]:
    from mgcc_runtime.bench import bench, parse_measures
    from mgcc_runtime.files import check_output, write_atomically
    from mgcc_runtime.story import read_story

    name = re.sub(r"[^A-Za-z0-9.+_-]", "_", f"latency-{options.bundle.resolve().name}")
    path = options.out or RESULTS / f"{name}.json"
    measures = parse_measures(options.parts)
    check_output(path, ".json")
    found = bench(
        options.bundle, runs=options.runs, warmup=options.warm_up, threads=options.threads, steps=options.steps,
        words=options.words, parts=read_story(options.story) if options.story else None, measures=measures,
        progress=doing.show,
    )  # fmt: skip
    doing.clear()
    write_atomically(path, (json.dumps(found, indent=2) + "\n").encode())
    from mgcc_benchmarks.latency_chart import chart

    picture = io.BytesIO()
    chart(found).save(picture, "PNG")
    write_atomically(path.with_suffix(".png"), picture.getvalue())
    return found, path
