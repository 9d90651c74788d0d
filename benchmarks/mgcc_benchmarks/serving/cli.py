"""`python benchmarks/serve.py`: the server's figures, each beside its bound."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgcc_benchmarks.commandline import RESULTS, progress
from mgcc_runtime.commands.console import Parser, Progress, command, give, give_json
from mgcc_runtime.errors import EXIT_DONE, EXIT_FAILED
from mgcc_runtime.options import THREADS, WholeNumber

REQUESTS = WholeNumber("requests", 1, 1_000_000)
CLIENTS = WholeNumber("clients", 1, 256)
ROUNDS = WholeNumber("rounds", 2, 1_000_000)


@command("serve.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; the exit code is 1 where a figure does not hold."""
    options = _parse(arguments)
    doing = progress()
    try:
        found, path = _measure(options, doing)
    finally:
        doing.clear()
    if options.json:
        give_json(found)
    else:
        from mgcc_benchmarks.serving.figures import table

        give("\n".join([*table(found["figures"]), str(path)]))
    return EXIT_DONE if all(told["holds"] for told in found["figures"]) else EXIT_FAILED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="serve.py", description="Measures `mgcc serve` in a process of its own.")
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle's folder")
    REQUESTS.add_to(parser, 200, "requests of all clients together (default: 200)")
    CLIENTS.add_to(parser, 8, "visitors at once (default: 8)")
    ROUNDS.add_to(parser, 100, "pairs, redrawings (a fifth of them) and cancels (default: 100)")
    THREADS.add_to(parser, 0, "of one stage; 0: one each core (default)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="(default: results/serve-BUNDLE.json)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace, doing: Progress) -> tuple[dict[str, Any], Path]:
    from mgcc_benchmarks.serving import many, single
    from mgcc_benchmarks.serving.client import serving
    from mgcc_benchmarks.serving.figures import Figure
    from mgcc_benchmarks.serving.installed import added_mb
    from mgcc_runtime.files import check_output, write_atomically
    from mgcc_runtime.machine import describe_machine
    from mgcc_runtime.pipeline import Pipeline

    name = re.sub(r"[^A-Za-z0-9.+_-]", "_", f"serve-{options.bundle.resolve().name}")
    path = options.out or RESULTS / f"{name}.json"
    check_output(path, ".json")
    bundle, threads, rounds = options.bundle, options.threads, options.rounds
    figures: list[Figure] = []
    with serving(bundle, threads) as server:
        figures.append(single.start(server, bundle, threads))
        doing.show("many visitors")
        figures += many.Load(server, options.requests, options.clients).run()
        doing.show("cancels")
        figures += single.cancel(server, rounds)
        doing.show("redrawings")
        figures.append(single.redraw(server, max(2, rounds // 5)))
        doing.show("a picture by HTTP and by the runtime")
        with Pipeline.load(bundle, threads=threads) as pipeline:
            figures.append(single.overhead(server, pipeline, max(2, rounds // 2)))
            profile = pipeline.bundle.manifest.profile
    doing.show("a kill")
    figures.append(single.killed(bundle, threads))
    size_mb, added = added_mb("serve")
    figures.append(Figure("the extra `serve` on the disk", size_mb, 8, "MB", ", ".join(added)))
    found = {
        "bundle": {"name": bundle.resolve().name, "profile": profile}, "threads": threads,
        "machine": describe_machine(), "figures": [figure.to_json() for figure in figures],
    }  # fmt: skip
    write_atomically(path, (json.dumps(found, indent=2) + "\n").encode())
    return found, path
