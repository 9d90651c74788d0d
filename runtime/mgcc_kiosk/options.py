"""The options of `mgcc serve`; light, so that `mgcc --help` has them without a server's packages."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from mgcc_kiosk.settings import USUAL_HOST, USUAL_PORT, Limits
from mgcc_runtime.options import THREADS, WholeNumber

_PORT = WholeNumber("port", 0, 65535, "use 0 for any that is free")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default=USUAL_HOST, metavar="H", help="where to listen (default: %(default)s)")
    _PORT.add_to(parser, USUAL_PORT, f"0: any that is free (default: {USUAL_PORT})")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="N",
        help="a host name that requests may be addressed to; may be repeated",
    )
    parser.add_argument(
        "--key-file", type=Path, metavar="FILE", help="the key that clients need (default: $MGCC_API_KEY)"
    )
    parser.add_argument(
        "--phone-url", metavar="URL", default="",
        help="where phones reach this server: a story gets a QR code by which visitors take it along",
    )  # fmt: skip
    parser.add_argument("--no-pictures", action="store_true", help="take no pictures of visitors'")
    parser.add_argument("--allowed-words", type=Path, metavar="FILE", help="refuse texts with any other word")
    parser.add_argument("--blocked-words", type=Path, metavar="FILE", help="refuse texts with one of these words")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="a content filter of your own; may be repeated",
    )
    THREADS.add_to(parser, 0, "of one stage; 0: one each core (default)")
    for limit in fields(Limits):
        parser.add_argument(
            f"--limit-{limit.name.replace('_', '-')}", dest=f"limit_{limit.name}", type=float, metavar="X",
            help=f"{limit.metadata['told']} (default: {limit.default:g})",
        )  # fmt: skip
