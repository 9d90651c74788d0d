"""Frozen dataclasses as JSON and back, checked by `pydantic`: types, missing fields and unknown ones."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def to_json(value: object) -> str:
    """The dataclass as indented JSON."""
    return TypeAdapter(type(value)).dump_json(value, indent=1).decode() + "\n"


def from_json(build: type[T], text: bytes) -> T:
    """The dataclass in `text`. ValueError, in one sentence without a full stop, if it holds anything else."""
    try:
        found = TypeAdapter(build).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(f"{where}: {first['msg']}") from error
    if unknown := _unknown(json.loads(text), json.loads(to_json(found))):
        raise ValueError(f"{', '.join(unknown[:4])}: there is no such field")
    return found


def _unknown(given: object, known: object, where: str = "") -> list[str]:
    """Names of fields that are in `given` alone."""
    if not isinstance(given, dict) or not isinstance(known, dict):
        return []
    found = [f"{where}{name}" for name in given if name not in known]
    return found + [n for k in given if k in known for n in _unknown(given[k], known[k], f"{where}{k}.")]
