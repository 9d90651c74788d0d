"""What a build makes is its own: damage one output, and the others and the cache stay whole."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgcc_export.build import build
from mgcc_export.options import BuildOptions
from mgcc_export.report.table import BuildReport
from mgcc_runtime.bundle.folder import Bundle, sha256_of
from mgcc_runtime.errors import BundleError

PACKAGES = ("runtime", "export", "calibration", "benchmarks", "examples", "tools", "mgcc_ref")


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in files_of(folder)}


def damage(folder: Path) -> None:
    """Change every file in place, as a bad disk or a careless hand would."""
    for path in files_of(folder):
        with path.open("r+b") as file:
            file.write(b"damage")


@pytest.mark.slow
def test_two_builds_from_one_cache(tiny_build: tuple[BuildReport, BuildOptions], tmp_path: Path) -> None:
    first, cache = tiny_build[1].out, tiny_build[1].cache
    before, kept = digests(first), digests(cache)
    second = dataclasses.replace(tiny_build[1], out=tmp_path / "second")
    build(second, lambda stage, step: None)
    assert digests(cache) == kept, "a build that finds its stages leaves the cache as it is"
    for folder in (first, second.out, cache):
        assert {path.stat().st_nlink for path in files_of(folder)} == {1}
    damage(second.out)
    assert digests(first) == before and digests(cache) == kept
    Bundle.open(first)
    with pytest.raises(BundleError):
        Bundle.open(second.out)
    build(second, lambda stage, step: None)  # and it is mended by the same command
    Bundle.open(second.out)
    assert digests(cache) == kept


def test_nothing_makes_hard_links() -> None:
    """Neither by name nor as the way that a tree is copied."""
    root = Path(__file__).parents[2]
    found = []
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            found += [f"{path}: {name}" for name in names if name == "os.link" or name.endswith(".hardlink_to")]
    assert found == []
