"""`mgcc kit`: its options, and what it prints."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from mgcc_runtime.commands.console import give_json, note, say
from mgcc_runtime.errors import EXIT_DONE
from mgcc_runtime.kit.target import PYTHONS, Processor, Target, Use


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--python", choices=PYTHONS, required=True, help="of the device: 3.10 is JetPack 6's, 3.12 JetPack 7's"
    )
    parser.add_argument(
        "--platform", choices=[p.value for p in Processor], required=True, help="the device's processor"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the kit's folder; an older kit is replaced"
    )
    parser.add_argument(
        "--for", dest="use", choices=[u.value for u in Use], default=Use.RUNTIME.value,
        help="kiosk: with `mgcc serve` and what starts it and a browser with the device (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--wheel", type=Path, metavar="FILE.whl", help="of mgcc-edge; built where this runs from a checkout"
    )


def run(options: argparse.Namespace) -> int:
    """Make the kit; returns the exit code."""
    from mgcc_runtime.kit.make import make_kit

    target = Target(options.python, Processor(options.platform))
    made = make_kit(options.bundle, target, options.out, Use(options.use), wheel=options.wheel, said=_say)
    if options.json:
        give_json({**asdict(made), "folder": str(made.folder)})
    else:
        note(
            f"{made.folder}: for {target}, {made.wheels} wheels, {made.bytes / 1e6:.0f} MB; README.md has the commands"
        )
    return EXIT_DONE


def _say(doing: str) -> None:
    say(f"mgcc kit: {doing}")
