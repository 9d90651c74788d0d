"""The releases of TensorRT whose Python interface the project knows: tensorrt_api/*.json, as tools/read_tensorrt_api.py
read them off the releases' own bindings.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "tensorrt_api"


@dataclass(frozen=True)
class Argument:
    name: str
    kind: str  # as the bindings write it: str, SupportsInt, IRuntimeConfig
    optional: bool


@dataclass(frozen=True)
class Overload:
    """One way to call a method: names, order and kinds of its arguments, and what it gives."""

    arguments: tuple[Argument, ...]
    gives: str

    @classmethod
    @functools.cache
    def parse(cls, text: str) -> Overload:
        """Of "(self: X, name: str, size: SupportsInt = 0) -> bool"; `self` is left out."""
        inside, _, gives = text.rpartition(" -> ")
        found = []
        for one in _split(inside[1:-1]):
            told, _, default = one.partition(" = ")
            name, _, kind = told.partition(": ")
            if name and name != "self":
                found.append(Argument(name, kind, bool(default)))
        return cls(tuple(found), gives)

    def bind(
        self, given: Sequence[Any], named: Mapping[str, Any], fits: Callable[[Any, str], bool]
    ) -> dict[str, Any] | None:
        """The arguments of a call by name; None where their number, names or kinds are not those of this overload."""
        known = {a.name: a for a in self.arguments}
        places = dict(zip(known, given, strict=False))
        if len(given) > len(known) or {*named} - {*known} or {*named} & {*places}:
            return None
        found = {**places, **named}
        if any(a.name not in found and not a.optional for a in self.arguments):
            return None
        return found if all(fits(value, known[name].kind) for name, value in found.items()) else None


def _split(text: str) -> list[str]:
    """The arguments of a signature: what commas outside of all brackets divide."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [one.strip() for one in found if one.strip()]


@dataclass(frozen=True)
class Release:
    """One release of one library."""

    library: str  # tensorrt or tensorrt_rtx
    version: str

    def __str__(self) -> str:
        return f"{self.library}-{self.version}"

    @property
    def classes(self) -> Mapping[str, Any]:
        """What its file says, by class."""
        return _classes(str(self))

    def has(self, name: str) -> bool:
        """Whether there is such a "Class.member", a value of an enumeration among them."""
        owner, _, member = name.partition(".")
        facts = self.classes.get(owner, {})
        return member in facts.get("members", facts.get("enumeration", {}))


@functools.cache
def _classes(release: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((FOLDER / f"{release}.json").read_text(encoding="utf-8"))["classes"]
    return found


def _found() -> list[Release]:
    parts = (path.stem.partition("-") for path in FOLDER.glob("*.json"))
    found = [Release(library, version) for library, _, version in parts]
    return sorted(found, key=lambda r: (r.library, [int(n) for n in r.version.split(".")]))


RELEASES = tuple(_found())
TENSORRT = tuple(r for r in RELEASES if r.library == "tensorrt")
TENSORRT_RTX = tuple(r for r in RELEASES if r.library == "tensorrt_rtx")
