"""Is every file and function short enough to be read at once, and every function called with few parameters?

`python tools/code_size.py`, in `make check`.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mgcc_runtime.commands.console import command, give
from mgcc_runtime.errors import EXIT_DONE, EXIT_FAILED

ROOT = Path(__file__).parents[1]
FOLDERS = ("mgcc_ref", "runtime", "export", "calibration", "benchmarks", "examples", "tests", "tools")
FILE_LINES = 400
FUNCTION_LINES = 60  # from its `def` to its last line
PARAMETERS = 6  # besides `self` and `cls`; what belongs together is one object
#: Functions with more parameters, and why.
MORE_PARAMETERS = {
    "mgcc_ref/networks/unet.py:forward": "the stage's inputs, as the exported graph has them",
    "runtime/mgcc_runtime/pipeline.py:generate": "a request's options by their names, for help() and editors",
}


def findings(paths: Iterable[Path]) -> Iterator[str]:
    """A line for each thing that is too long in these files of Python."""
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > FILE_LINES:
            yield f"{path}: {lines} lines, expected at most {FILE_LINES}; split the file"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from (f"{path}:{node.lineno}: {node.name} {what}" for what in _of_function(path, node))


def _of_function(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if lines > FUNCTION_LINES:
        yield f"has {lines} lines, expected at most {FUNCTION_LINES}; give a step of it a function of its own"
    every = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    count = len(every) - (every[:1] in (["self"], ["cls"]))
    if node.name.startswith("test_"):  # pytest calls it, with its fixtures
        return
    reasoned = any(f"{path.as_posix()}:{node.name}".endswith(f"/{known}") for known in MORE_PARAMETERS)
    if count > PARAMETERS and not reasoned:
        yield f"takes {count} parameters, expected at most {PARAMETERS}; make one object of those that belong together"


@command("code_size.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Check; returns the exit code, 1 where something is too long."""
    argparse.ArgumentParser(prog="code_size.py", description=(__doc__ or "").splitlines()[0]).parse_args(arguments)
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    found = list(findings(paths))
    give(
        "\n".join(found)
        or f"{len(paths)} files: none above {FILE_LINES} lines, no function above {FUNCTION_LINES}, "
        f"none without a reason with more than {PARAMETERS} parameters"
    )
    return EXIT_FAILED if found else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
