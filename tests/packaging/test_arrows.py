"""Imports go one way: between the files of a package, and between its folders. Between packages: `test_imports.py`."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from .test_imports import FOLDERS, imports_of, sources

Arrows = Mapping[str, set[str]]

_CHATS = ("conversation/chat", "conversation/recipe", "conversation/turns")
#: A pipeline makes chats (`Pipeline.chat()`), whose files name its type, for a type checker alone.
MADE_BY = {("mgcc_runtime", name): "pipeline" for name in _CHATS}


def file_arrows(package: str) -> dict[str, set[str]]:
    """Each file of the package, by its path in it, with the files that it imports; for a type checker's eyes, too."""
    root = FOLDERS[package]
    modules = [path for path in sources(package) if path.name != "__main__.py"]  # which nothing imports
    known = {path.relative_to(root).with_suffix("").as_posix() for path in modules}
    left = {name: {name, MADE_BY.get((package, name), name)} for name in known}
    return {name: set(_imported(root / f"{name}.py", package, known)) - left[name] for name in known}


def _imported(path: Path, package: str, known: set[str]) -> Iterator[str]:
    """`from package.folder import name` is the file folder/name, or folder/__init__ where there is none."""
    for name in imports_of(path, package):
        top, *parts = name.split(".")
        if top != package:
            continue
        places = ("/".join(parts), "/".join([*parts, "__init__"]).lstrip("/"), "/".join(parts[:-1]),
                  "/".join([*parts[:-1], "__init__"]).lstrip("/"))  # fmt: skip
        found = next((place for place in places if place in known), None)
        if found is not None:
            yield found


def folder_arrows(files: Arrows) -> dict[str, set[str]]:
    """Each folder with the folders that it imports; a file in the package's own folder stands for itself."""
    found: dict[str, set[str]] = {}
    for name, imported in files.items():
        places = found.setdefault(_place(name), set())
        places |= {_place(other) for other in imported} - {_place(name)}
    return found


def _place(name: str) -> str:
    return name.rpartition("/")[0] or name


def circle(arrows: Arrows) -> list[str]:
    """Names of a circle, the first at the end again; empty if everything goes one way."""
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", FOLDERS)
def test_files_import_one_way(package: str) -> None:
    assert circle(file_arrows(package)) == []


@pytest.mark.parametrize("package", FOLDERS)
def test_folders_import_one_way(package: str) -> None:
    assert circle(folder_arrows(file_arrows(package))) == []


def test_the_arrows_are_those_of_the_files() -> None:
    arrows = file_arrows("mgcc_runtime")
    assert "bundle/manifest" in arrows["bundle/folder"] and "engines/__init__" in arrows["engines/onnxruntime/session"]
    assert sum(map(len, arrows.values())) > 300


def test_a_circle_would_be_found() -> None:
    """Between two folders without one between their files, too."""
    files = {"a/first": {"b/second"}, "b/second": set(), "b/third": {"a/fourth"}, "a/fourth": set()}
    assert circle(files) == []
    assert sorted(set(circle(folder_arrows(files)))) == ["a", "b"]
    assert sorted(set(circle({"x": {"y"}, "y": {"x"}}))) == ["x", "y"]
