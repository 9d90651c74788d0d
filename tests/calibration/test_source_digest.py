"""A cache's key follows the source code: every file below a package, where it lies and what it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mgcc_calibration.source_digest import source_digest


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a folder in it; one of its name that was imported before would hide it, so the name is rare."""
    folder = tmp_path / "digested_package"
    (folder / "inner").mkdir(parents=True)
    for name in ("__init__.py", "first.py", "inner/__init__.py", "inner/second.py", "inner/data.json"):
        (folder / name).write_text(f"# {name}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def _rename(folder: Path, old: str, new: str) -> None:
    (folder / old).rename(folder / new)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file changed": lambda folder: (folder / "first.py").write_text("x = 1\n"),
    "a file of a subfolder changed": lambda folder: (folder / "inner" / "second.py").write_text("x = 1\n"),
    "a data file of a subfolder changed": lambda folder: (folder / "inner" / "data.json").write_text("{}"),
    "a file added to a subfolder": lambda folder: (folder / "inner" / "third.py").touch(),
    "a file moved into a subfolder": lambda folder: _rename(folder, "first.py", "inner/first.py"),
    "a file moved out of a subfolder": lambda folder: _rename(folder, "inner/second.py", "second.py"),
    "a file renamed": lambda folder: _rename(folder, "inner/second.py", "inner/other.py"),
    "a folder renamed": lambda folder: _rename(folder, "inner", "other"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_gives_another_digest(package: Path, name: str) -> None:
    before = source_digest("digested_package")
    assert source_digest("digested_package") == before
    CHANGES[name](package)
    assert source_digest("digested_package") != before


def test_a_part_of_a_package_is_its_own(package: Path) -> None:
    parts = ("digested_package.inner", "digested_package.inner.second")
    before = [source_digest(name) for name in parts]
    (package / "first.py").write_text("x = 1\n")
    assert [source_digest(name) for name in parts] == before
    (package / "inner" / "second.py").write_text("x = 1\n")
    assert not set(before) & {source_digest(name) for name in parts}


def test_what_python_leaves_behind_is_no_source(package: Path) -> None:
    before = source_digest("digested_package")
    (package / "inner" / "__pycache__").mkdir()
    (package / "inner" / "__pycache__" / "second.cpython-311.pyc").write_bytes(b"compiled")
    assert source_digest("digested_package") == before


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="no package or module mgcc_calibration_absent"):
        source_digest("mgcc_calibration_absent")
