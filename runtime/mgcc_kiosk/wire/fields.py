"""Fields of a JSON body, each taken with its type or refused in one sentence that names it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mgcc_kiosk.errors import invalid
from mgcc_runtime.values import is_whole, shown


def text(body: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A text; `default` where it is left out or null, unless there is none."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise invalid(f"{name} is {shown(value)}, expected a text; correct it", name)
    return value


def whole(body: Mapping[str, Any], name: str, least: int, most: int, default: int) -> int:
    """A whole number within bounds; `default` where it is left out or null."""
    value = body.get(name)
    if value is None:
        return default
    if not is_whole(value) or not least <= int(value) <= most:
        raise invalid(f"{name} is {shown(value)}, expected a whole number from {least} to {most}; change it", name)
    return int(value)


def flag(body: Mapping[str, Any], name: str) -> bool:
    """True or false; false where it is left out or null."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{name} is {shown(value)}, expected true or false; correct it", name)
    return bool(value)


def word(body: Mapping[str, Any], name: str, words: Iterable[str], default: str) -> str:
    """One of some words; `default` where it is left out or null."""
    value = body.get(name)
    if value is None:
        return default
    expected = list(words)
    if value not in expected:
        raise invalid(f"{name} is {shown(value)}, expected {' or '.join(expected)}; choose one", name)
    return str(value)


def items(body: Mapping[str, Any], name: str) -> list[Any]:
    """A list."""
    value = body.get(name)
    if not isinstance(value, list):
        raise invalid(f"{name} is {shown(value)}, expected a list; correct it", name)
    return value


def only(body: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse a field that nobody would read: it is misspelt."""
    known = list(names)
    for name in body:
        if name not in known:
            raise invalid(f"{shown(name)} is no field here, expected {', '.join(known)}; correct it", str(name)[:60])
