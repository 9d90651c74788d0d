"""Reading a story file: {"parts": [{"text": "..."}, {"image": "path"}, ...]}."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mgcc_runtime.errors import PromptError
from mgcc_runtime.prompt import Part
from mgcc_runtime.reading import read_json

_FORM = '{"parts": [{"text": "..."}, {"image": "path"}, ...]}'


def read_story(path: Path) -> list[Part]:
    """The parts of a story; image paths are relative to the file. InputError if it has another form."""
    return parse_story(read_json(path, "story"), path.parent, f"story {path}")


def parse_story(values: object, folder: Path, name: str) -> list[Part]:
    """The parts of a story already parsed as JSON; `name` is for errors."""
    if not isinstance(values, dict) or not isinstance(values.get("parts"), list):
        raise PromptError(f"{name} is not of the form {_FORM}; correct it")
    return [_parse_part(part, number, folder, name) for number, part in enumerate(values["parts"], 1)]


def story_json(parts: Sequence[Part]) -> dict[str, list[dict[str, str]]]:
    """A story file as `parse_story` reads it: texts, and paths of images; TypeError for an image in memory."""
    return {"parts": [_part_json(part) for part in parts]}


def _part_json(part: Part) -> dict[str, str]:
    if isinstance(part, str):
        return {"text": part}
    if isinstance(part, Image.Image):
        raise TypeError("an image in memory has no path; save it first")
    return {"image": os.fspath(part)}


def _parse_part(part: object, number: int, folder: Path, name: str) -> Part:
    if isinstance(part, dict) and len(part) == 1:
        ((kind, value),) = part.items()
        if kind == "text" and isinstance(value, str):
            return value
        if kind == "image" and isinstance(value, str):
            return folder / value
    raise PromptError(
        f'part {number} of {name} is {str(part)[:60]!r}, expected {{"text": "..."}} or {{"image": "path"}}'
    )
