"""Finished work on disk, under a key of everything that it was made from: a killed build goes on after it.

Another input, setting, package version or line of source gives another key, so nothing stale is ever found; nor is half
an entry, or one whose files have changed since.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock

from mgcc_runtime.bundle.folder import FileEntry, sha256_of
from mgcc_runtime.errors import InputError
from mgcc_runtime.reading import Numbers, read_json

_ENTRY = "entry.json"
_KEY_LENGTH = 20  # hexadecimal digits of the key in a folder's name
_ABANDONED_S = 24 * 3600.0  # a half-made entry this old belongs to no running build

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A finished entry: its folder, what was written about it, and its files by their path in the folder."""

    folder: Path
    values: Mapping[str, Any]
    files: Mapping[str, FileEntry]


@dataclass(frozen=True)
class Form(Generic[T]):
    """How entries of one kind are written and read back."""

    to_json: Callable[[T], dict[str, Any]]
    read: Callable[[Entry], T]  # KeyError, TypeError, ValueError or AttributeError where the values are of another form


@dataclass(frozen=True)
class Cache(Generic[T]):
    """A folder of finished entries, each under a name and a key; of each name the `newest` ones are kept."""

    root: Path
    form: Form[T]
    newest: int = 1

    def lock(self, name: str) -> FileLock:
        """Held while an entry is looked up and made: of two builds, the second waits and finds what the first made."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / f".{name}.lock")

    def get(self, name: str, key: str) -> T | None:
        """The finished entry of this key, its files' hashes checked; None if there is none, or a damaged one."""
        folder = self._folder(name, key)
        try:
            values = read_json(folder / _ENTRY, "entry of the cache", Numbers.ANY)
            files = {file: FileEntry(**entry) for file, entry in values.pop("files").items()}
            found = self.form.read(Entry(folder, values, files))
            intact = all(sha256_of(folder / file) == entry.sha256 for file, entry in files.items())
        except (InputError, OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return found if intact else None

    def put(self, name: str, key: str, make: Callable[[Path], T]) -> T:
        """Have `make` fill a temporary folder, then give it its name in one step: half an entry is never found."""
        self.root.mkdir(parents=True, exist_ok=True)
        folder = self._folder(name, key)
        temporary = Path(tempfile.mkdtemp(prefix=f"{name}.partial-", dir=self.root))
        try:
            made = make(temporary)
            files = {str(p.relative_to(temporary).as_posix()): p for p in sorted(temporary.rglob("*")) if p.is_file()}
            entry = self.form.to_json(made) | {"files": {file: asdict(file_entry(p)) for file, p in files.items()}}
            (temporary / _ENTRY).write_text(json.dumps(entry, indent=1), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one: `get` refused it
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._prune(name, folder)
        found = self.get(name, key)
        assert found is not None, f"{name} cannot be read back from {folder}"
        return found

    def discard(self, name: str) -> None:
        """Drop all entries of a name."""
        for folder in self._entries(name):
            shutil.rmtree(folder, ignore_errors=True)

    def last_s(self, name: str, *field: str) -> float:
        """Seconds that a step took the last time, whatever the entry was made from; 0 if never.

        `field` is the way to it in the entry's values, such as "lowered", "engine", "seconds".
        """
        try:
            value = read_json(self._entries(name)[0] / _ENTRY, "entry of the cache", Numbers.ANY)
            for part in field:
                value = value[part]
            return float(value)
        except (InputError, IndexError, OSError, ValueError, TypeError, KeyError):
            return 0.0

    def _folder(self, name: str, key: str) -> Path:
        return self.root / f"{name}-{key[:_KEY_LENGTH]}"

    def _entries(self, name: str) -> list[Path]:
        """Folders of the finished entries of this name alone (`llm-int8-weights` begins like `llm-int8`), newest first.

        By their entry's time.
        """
        found = [p for p in self.root.glob(f"{name}-{'[0-9a-f]' * _KEY_LENGTH}") if (p / _ENTRY).is_file()]
        return sorted(found, key=lambda p: (p / _ENTRY).stat().st_mtime, reverse=True)

    def _prune(self, name: str, new: Path) -> None:
        """Drop the oldest entries of a name, and what a killed build left half done."""
        before = [folder for folder in self._entries(name) if folder != new]
        for old in before[self.newest - 1 :]:
            shutil.rmtree(old, ignore_errors=True)
        for partial in self.root.glob("*.partial-*"):
            if time.time() - partial.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(partial, ignore_errors=True)


def file_entry(path: Path) -> FileEntry:
    """Size and hash of a file, as a manifest lists it."""
    return FileEntry(path.stat().st_size, sha256_of(path))
