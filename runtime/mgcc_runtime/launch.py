"""Starting a command of the repository, with an interpreter that may not have what it needs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NoReturn


def launch(module: str) -> NoReturn:
    """Run `main` of `module` and exit with its code. A package that is missing is said in one sentence, exit code 1."""
    try:
        code = importlib.import_module(module).main()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("mgcc_"):  # ours: a mistake of the code, not of the set-up
            raise
        sys.exit(  # a text goes to standard error, with exit code 1
            f"{Path(sys.argv[0]).name}: {sys.executable} does not have the package {error.name}; "
            "run `make setup` once, then `. .venv/bin/activate` and the same command"
        )
    sys.exit(code)
