"""docs/architecture.md names every folder, and only files that are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT
from .test_imports import FOLDERS

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
#: Words that stand before a path's list, and the folder that its files lie in.
PATHS = {
    "`Pipeline.generate` passes": ROOT / "runtime" / "mgcc_runtime",
    "`export/build_engines.py` passes": ROOT / "export" / "mgcc_export",
    "Below fp32 on the CPU": ROOT / "calibration" / "mgcc_calibration",
}


def folders(root: Path) -> Iterator[str]:
    """The folder of a package and all below it that hold modules."""
    for folder in (root, *sorted(root.rglob("*/"))):
        if any(folder.glob("*.py")):
            yield f"{folder.relative_to(ROOT).as_posix()}/"


@pytest.mark.parametrize("package", FOLDERS)
def test_every_folder_is_named(package: str) -> None:
    named = set(re.findall(r"^\| `([^`]+/)` \|", PAGE, re.MULTILINE))
    there = set(folders(FOLDERS[package]))
    base = f"{FOLDERS[package].relative_to(ROOT).as_posix()}/"
    assert {name for name in named if name.startswith(base)} == there


@pytest.mark.parametrize("words", PATHS)
def test_a_path_names_files_that_are_there(words: str) -> None:
    steps = PAGE.partition(words)[2].partition("\n\n")[2].partition("\n\n")[0]
    names = re.findall(r"`([\w/]+\.py)`", steps)
    assert len(names) >= 6
    assert [name for name in names if not (PATHS[words] / name).is_file()] == []


def test_whatever_else_looks_like_a_file_is_one() -> None:
    places = (ROOT, *PATHS.values(), *(path.parent for path in FOLDERS.values()))
    names = re.findall(r"`([\w/]+\.py)`", PAGE)
    assert [name for name in names if not any((place / name).is_file() for place in places)] == []
