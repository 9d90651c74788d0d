"""Are the bundles of two folders the same, byte for byte? `python tests/same_bundles.py BEFORE AFTER`.

A change that moves or merges code must not change what a build writes. Build some bundles before it and some after it,
each kind under the same name in either folder, and compare the folders with this. What a build says of itself is left
aside: when it was built, with which versions, and the hashes and sizes of the files in which it says so.

An engine is no measure: TensorRT-RTX 1.7 orders tensors of a plan by their place in memory, so one graph gave either of
two files in five builds. Compare the graphs, which a bundle for `jetson` holds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mgcc_runtime.commands.console import command, give
from mgcc_runtime.errors import EXIT_DONE, EXIT_FAILED
from mgcc_runtime.names import ENGINE_SUFFIX, MANIFEST

#: Fields of a manifest and of an engine's record that differ from build to build.
TIMES_AND_VERSIONS = ("built_at", "built_with", "seconds")
_RECORD_SUFFIX = f"{ENGINE_SUFFIX}.json"


def differences(before: Path, after: Path) -> Iterator[str]:
    """What differs between the bundles of two folders, a line each."""
    names = [{path.parent.name for path in root.glob(f"*/{MANIFEST}")} for root in (before, after)]
    if not names[0]:
        yield f"{before} holds no bundle, expected folders with a {MANIFEST} each"
    for name in sorted(names[0] ^ names[1]):
        yield f"{name}: only in {before if name in names[0] else after}"
    for name in sorted(names[0] & names[1]):
        yield from (f"{name}: {line}" for line in _of_bundle(before / name, after / name))


def _of_bundle(before: Path, after: Path) -> Iterator[str]:
    files = [_files(root) for root in (before, after)]
    for name in sorted(files[0] ^ files[1]):
        yield f"{name} is only in {before if name in files[0] else after}"
    for name in sorted(files[0] & files[1]):
        if _described(name):
            one, other = (_without_times(json.loads((root / name).read_bytes())) for root in (before, after))
            yield from (f"{name}: {place}" for place in _fields(one, other, ""))
        elif _digest(before / name) != _digest(after / name):
            yield f"{name} differs ({(before / name).stat().st_size} and {(after / name).stat().st_size} bytes)"


def _files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def _described(name: str) -> bool:
    return name == MANIFEST or name.endswith(_RECORD_SUFFIX)


def _without_times(values: dict[str, Any]) -> dict[str, Any]:
    """The description without its times and versions, and without hashes of other descriptions."""
    left = {name: value for name, value in values.items() if name not in TIMES_AND_VERSIONS}
    if "files" in left:
        left["files"] = {name: entry for name, entry in left["files"].items() if not _described(name)}
    return left


def _fields(one: Any, other: Any, place: str) -> Iterator[str]:
    """Where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _fields(one.get(key), other.get(key), f"{place}.{key}" if place else key)
    elif one != other:
        yield f"{place}: {one!r} and {other!r}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@command("same_bundles.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; returns the exit code, 1 where something differs."""
    parser = argparse.ArgumentParser(description="Compares the bundles of two folders byte for byte.")
    parser.add_argument("before", type=Path, metavar="BEFORE", help="a folder of bundles")
    parser.add_argument("after", type=Path, metavar="AFTER", help="a folder of bundles of the same names")
    options = parser.parse_args(arguments)
    found = list(differences(options.before, options.after))
    give("\n".join(found) or f"the bundles of {options.before} and {options.after} are the same")
    return EXIT_FAILED if found else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
