"""The options of a server on Ray Serve, which its command and each of its replicas read."""

from __future__ import annotations

import argparse
from pathlib import Path

from mgcc_kiosk.options import add_options
from mgcc_runtime.options import WholeNumber

NAME = "python -m mgcc_kiosk.on_ray"
_REPLICAS = WholeNumber("replicas", 1, 64)


def parser_of() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=NAME, description="`mgcc serve` with several replicas on Ray Serve")
    parser.add_argument(
        "--bundle", type=Path, required=True, metavar="DIR", help="the bundle's folder, on each machine"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _REPLICAS.add_to(parser, 2, "servers, each with the bundle in memory (default: 2)")
    parser.add_argument("--cpus", type=float, default=1.0, metavar="X", help="that Ray counts for each (default: 1)")
    parser.add_argument("--gpus", type=float, default=0.0, metavar="X", help="that Ray gives to each (default: none)")
    parser.add_argument("--cluster", metavar="ADDRESS", help="a running cluster's address (default: start one here)")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="where Ray keeps its files (default: its own choice)"
    )
    add_options(parser)
    return parser
