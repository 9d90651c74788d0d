"""`python benchmarks/latency.py`: the runtime's own measurement, kept with its machine, and drawn.

It does not import PyTorch: the report takes this process's memory for that of a bundle.
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

from mgcc_benchmarks.commandline import RESULTS, progress
from mgcc_runtime.commands.console import Parser, Progress, command, give_json, say
from mgcc_runtime.commands.reports import add_bench, what_to_measure
from mgcc_runtime.errors import EXIT_DONE

_EPILOG = (
    "Percentiles stand only where the runs can carry them: p90 from 10 runs on, p99 from 100; below that the slowest "
    "run is shown (in JSON it stands in their place, and as_max names them). Of cold starts at most 5 are made, of "
    "dialogues 10, of requests at one point of a scale 5. Growth exponents have a range: what is found without any one "
    "of the points. others_cores is what other programs used of the machine meanwhile; more than a tenth of a core is "
    "warned of."
)


@command("latency.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; returns the exit code (see `mgcc_runtime.commands.console`)."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    doing = progress()
    try:
        found, path = _measure(options, doing)
    finally:
        doing.clear()
    if options.json:
        give_json(found)
        return EXIT_DONE
    from mgcc_runtime.measure.bench_table import bench_table

    print("\n".join(bench_table(found)))
    print(f"{path} and {path.with_suffix('.png').name}")
    return EXIT_DONE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="latency.py", description="Times a bundle's requests: cold, warm, in a dialogue, scaled.", epilog=_EPILOG
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle's folder")
    add_bench(parser)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also writes .png (default: results/)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace, doing: Progress) -> tuple[dict[str, Any], Path]:
    from mgcc_runtime.files import check_output, write_atomically
    from mgcc_runtime.measure.bench import bench

    name = re.sub(r"[^A-Za-z0-9.+_-]", "_", f"latency-{options.bundle.resolve().name}")
    path = options.out or RESULTS / f"{name}.json"
    measured = what_to_measure(options)
    check_output(path, ".json")
    found = bench(options.bundle, *measured, threads=options.threads, progress=doing.show)
    doing.clear()
    write_atomically(path, (json.dumps(found, indent=2) + "\n").encode())
    _draw(found, path)
    return found, path


def _draw(found: dict[str, Any], path: Path) -> None:
    """The chart beside the figures; a device without matplotlib gets a sentence in its place."""
    try:
        from mgcc_benchmarks.latency.chart import chart
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "matplotlib":
            raise
        say(f"no chart: matplotlib is not installed, the figures are in {path}; `pip install matplotlib` draws one")
        return
    from mgcc_runtime.files import write_atomically

    picture = io.BytesIO()
    chart(found).savefig(picture, format="png", dpi=110)
    write_atomically(path.with_suffix(".png"), picture.getvalue())
