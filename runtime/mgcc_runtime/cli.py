"""The command line: `mgcc generate | chat | info | verify | bench | serve | kit`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mgcc_runtime.commands import draw, reports, serve
from mgcc_runtime.commands.console import Parser, command
from mgcc_runtime.kit import cli as kit
from mgcc_runtime.version import VERSION


@command("mgcc")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (see `console`)."""
    options = _parser().parse_args(arguments)
    code: int = options.run(options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="mgcc", description="Draws the next image of a story of texts and images.")
    parser.add_argument("--version", action="version", version=f"mgcc-edge {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    draw.add_generate(_add_command(commands, "generate", draw.generate, "draw the next image"))
    draw.add_chat(
        _add_command(
            commands, "chat", draw.chat,
            "a dialogue on standard input: each line is a turn, and draws; /image FILE adds one",
        )
    )  # fmt: skip
    _add_command(commands, "info", reports.info, "say what a bundle is and what it needs")
    reports.add_verify(
        _add_command(commands, "verify", reports.verify, "compare this device with the bundle's reference data")
    )
    reports.add_bench(_add_command(commands, "bench", reports.bench, "measure how long requests take on this machine"))
    serve.add_serve(
        _add_command(commands, "serve", serve.serve, "answer HTTP: OpenAI's clients, and the page of a kiosk")
    )
    kit.add_options(_add_command(commands, "kit", kit.run, "make a folder that a device installs from offline"))
    return parser


def _add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle's folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser
