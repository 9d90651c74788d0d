"""Starting a command of the repository, with an interpreter that may not have what it needs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mgcc_runtime.commands.console import command, say
from mgcc_runtime.errors import EXIT_FAILED


def launch(module: str) -> NoReturn:
    """Run `main` of `module` and exit with its code. A package that is missing is said in one sentence, exit code 1."""
    name = Path(sys.argv[0]).name

    @command(name)  # of importing, too, which takes seconds
    def run(arguments: Sequence[str] | None = None) -> int:
        try:
            code: int = importlib.import_module(module).main(arguments)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("mgcc_"):  # ours: a mistake of the code, not of the set-up
                raise
            say(
                f"{name}: {sys.executable} does not have the package {error.name}; "
                "run `make setup` once, then `. .venv/bin/activate` and the same command"
            )
            return EXIT_FAILED
        return code

    sys.exit(run())
