"""A digest of source code: the part of a cache's key that says which code made an entry."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path

_LEFT_BY_PYTHON = "__pycache__"


def source_digest(*names: str) -> str:
    """SHA-256 over the source of packages and modules, by their dotted names.

    Of a package it takes every file below its folder, those of subfolders and data files too, each with its place in
    the package: a changed, added, renamed or moved file gives another digest.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0".encode())
        for place, path in _files(name):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{place}\0{content}\0".encode())
    return digest.hexdigest()


def _files(name: str) -> Iterable[tuple[str, Path]]:
    """Each file with its place below the package, in order; a module's own file has the place "."."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"no package or module {name}, expected one whose source can be read", name=name)
    if not spec.submodule_search_locations:
        assert spec.origin is not None, name
        return [(".", Path(spec.origin))]
    return sorted(
        (path.relative_to(folder).as_posix(), path)
        for folder in map(Path, spec.submodule_search_locations)
        for path in folder.rglob("*")
        if path.is_file() and _LEFT_BY_PYTHON not in path.parts
    )
