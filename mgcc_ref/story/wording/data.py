"""The JSON data files of words and items, each in the folder of the module that reads it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@functools.cache
def data_file(path: Path) -> Mapping[str, Any]:
    """The content of the file at `path`, read once a process."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def words_by_name(values: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Lists of words by their names, in the file's order."""
    return {name: tuple(words) for name, words in values.items()}
