"""Does what a device runs keep to the oldest Python that one has? `python tools/oldest_python.py`, in `make check`.

JetPack 6 brings Python 3.10. A linter's target version leaves names of the standard library alone (`enum.StrEnum`,
`datetime.UTC`), so vermin looks for those here, in the runtime and in all that the device's own commands import. A line
that a device never runs says so with a comment `novm`.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mgcc_runtime.commands.console import command, give
from mgcc_runtime.errors import EXIT_DONE, EXIT_FAILED

ROOT = Path(__file__).parents[1]
OLDEST = "3.10"
#: Whole folders, and commands outside of them that need no torch; what a command imports as it starts counts too.
FOLDERS = (ROOT / "runtime",)
COMMANDS = ("mgcc_export.device_build", "mgcc_export.tensorrt.builder", "mgcc_benchmarks.latency.cli")
_PATH = tuple(ROOT / folder for folder in (".", "runtime", "export", "calibration", "benchmarks"))


def device_modules() -> dict[str, Path]:
    """Name and file of each module of ours that runs on a device."""
    runtime = {_name(path, folder): path for folder in FOLDERS for path in sorted(folder.rglob("*.py"))}
    return {**runtime, **_closure(COMMANDS)}


def findings(paths: Iterable[Path]) -> str:
    """vermin's report on what needs a newer Python in these files; empty if nothing does."""
    vermin = [sys.executable, "-c", "import vermin; vermin.main()"]  # it has no `python -m`
    options = [f"--target={OLDEST}-", "--violations", "--no-tips", "--quiet"]
    done = subprocess.run([*vermin, *options, *map(str, paths)], capture_output=True, text=True, check=False)
    return done.stdout.strip() + done.stderr.strip() if done.returncode else ""


def _name(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _closure(names: Iterable[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0], *_imports(ast.parse(path.read_text(encoding="utf-8")).body)]
    return found


def _file_of(name: str) -> Path | None:
    """The file of one of our modules; None for others' and for names within a module."""
    inside = name.replace(".", "/")
    places = (folder / form for folder in _PATH for form in (f"{inside}.py", f"{inside}/__init__.py"))
    return next((place for place in places if name and place.is_file()), None)


def _imports(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Imports that run as a module starts; `from a import b` as a and a.b. Not a checker's or a function's."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Try):
            yield from _imports(node.body)


@command("oldest_python.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Check; returns the exit code, 1 where something newer is used."""
    argparse.ArgumentParser(prog="oldest_python.py", description=(__doc__ or "").splitlines()[0]).parse_args(arguments)
    modules = device_modules()
    found = findings(modules.values())
    give(found or f"{len(modules)} modules that run on a device: nothing newer than Python {OLDEST}")
    return EXIT_FAILED if found else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
