"""The items of both benchmarks: a prompt, the name of its result, and the true picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgcc_runtime.errors import InputError
from mgcc_runtime.reading import parse_json

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp")  # of two files of one picture, the first kind is taken
_NAME = re.compile(r"[A-Za-z0-9_-]{1,120}")  # becomes a file's name


@dataclass(frozen=True)
class Item:
    """One picture to draw."""

    name: str
    result: str  # the file name, without suffix, of its picture
    parts: tuple[str | Path, ...]  # texts and picture files, in order
    truth: Path | None  # the file of the true picture; None: there is none
    skipped: str = ""  # why it is not drawn; "": it is


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of a folder by a key in their names."""

    files: Mapping[str, Path]

    @classmethod
    def by_stem(cls, folder: Path) -> PictureFolder:
        return cls(_first_of_kind((path.stem, path) for path in _pictures_in(folder)))

    @classmethod
    def by_digits(cls, folder: Path, count: int) -> PictureFolder:
        """The pictures by the number in the last `count` digits of the stem, without leading zeros."""
        numbered = re.compile(rf"(?:.*\D)?0*(\d{{1,{count}}})")
        found = ((match.group(1), path) for path in _pictures_in(folder) if (match := numbered.fullmatch(path.stem)))
        return cls(_first_of_kind(found))


def _pictures_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise InputError(
            f"pictures {folder} cannot be read ({error.strerror}); give the folder of the pictures"
        ) from None


def _first_of_kind(found: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for key, path in found:
        held = files.get(key)
        if held is None or SUFFIXES.index(path.suffix.lower()) < SUFFIXES.index(held.suffix.lower()):
            files[key] = path
    return files


def read_dataset(path: Path, what: str) -> Any:
    """The JSON of an official file, however large; InputError says `what` it should be."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read ({error.strerror}); give the official JSON file") from None
    return parse_json(data, f"{what} {path}")


class Place:
    """A value of a JSON file, with its path: `annotations[3][0].text`."""

    def __init__(self, value: Any, file: str, at: str = "") -> None:
        self.value, self._file, self._at = value, file, at

    def key(self, name: str) -> Place:
        """The value of an object's key. InputError if this is no object, or it lacks the key."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        if name not in self.value:
            raise InputError(f"{self._file} lacks {self._joined(name)}; give the official file")
        return Place(self.value[name], self._file, self._joined(name))

    def has(self, name: str) -> bool:
        return isinstance(self.value, dict) and self.value.get(name) is not None

    def list(self) -> Sequence[Place]:
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return [Place(value, self._file, f"{self._at}[{i}]") for i, value in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.wrong("a text")
        return self.value

    def whole(self) -> int:
        """A whole number, also one that is written as a text. InputError for any other value."""
        value = self.value
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong("a whole number")
        return value

    def index_of(self, values: Sequence[str]) -> str:
        """The element of `values` at this index."""
        index = self.whole()
        if not 0 <= index < len(values):
            raise self.wrong(f"the place of one of {len(values)} texts")
        return values[index]

    def name(self) -> str:
        """An id (a text or a number) that can be a file name."""
        found = str(self.value) if isinstance(self.value, int) and not isinstance(self.value, bool) else self.text()
        if not _NAME.fullmatch(found):
            raise self.wrong("an id of letters, digits, _ and -")
        return found

    def wrong(self, expected: str) -> InputError:
        said = repr(self.value)
        said = said if len(said) <= 40 else f"{said[:40]}..."
        return InputError(f"{self._file} has {said} at {self._at or 'its top'}, expected {expected}; correct it")

    def _joined(self, name: str) -> str:
        return f"{self._at}.{name}" if self._at else name
