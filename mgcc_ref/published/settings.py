"""`config.json` beside weights: reading it, and comparing it with a profile, field by field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from mgcc_ref.weights import WeightsError

CONFIG = "config.json"
_MOST_NAMED = 6


def read_settings(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """The JSON object in the folder's file `name`. WeightsError if there is none."""
    path = folder / name
    if not path.is_file():
        raise WeightsError(
            f"{folder} lacks {name}, which says how its tensors are to be used; copy it from where the weights are from"
        )
    try:
        found = json.loads(path.read_bytes())  # bytes may begin with a byte-order mark
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not valid JSON ({error}); copy it again") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds no JSON object; copy it from where the weights are from")
    return found


def require_fields(where: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """WeightsError names every field of a `config.json` whose value is not implemented here."""
    wrong = [
        f"{name} {_said(found[name])}" for name in wanted if name in found and not _same(found[name], wanted[name])
    ]
    if wrong:
        known = ", ".join(f"{name} {_said(wanted[name])}" for name in wanted if _differs(found, wanted, name))
        raise WeightsError(
            f"{where} says {listed(wrong, '; ')}, which this project's {what} does not do "
            f"(it does {known}); give other weights"
        )


def require_config(where: Path, found: Any, profile: Any, what: str, ignored: Sequence[str] = ()) -> None:
    """WeightsError names every field in which a folder's config differs from the profile's, with both values.

    Both are of the same frozen dataclass; `source` is never compared.
    """
    names = [f.name for f in fields(found) if f.name not in ("source", *ignored)]
    wrong = [
        f"{name} {_said(getattr(found, name))} where the profile has {_said(getattr(profile, name))}"
        for name in names
        if not _same(getattr(found, name), getattr(profile, name))
    ]
    if wrong:
        raise WeightsError(
            f"the {what} in {where} is not the profile's: {listed(wrong, '; ')}; give the weights that the profile "
            "names, or derive a profile from your folders with `python tools/derive_profile.py`"
        )


def _differs(found: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> bool:
    return name in found and not _same(found[name], wanted[name])


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) or isinstance(other, float):
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        return numbers and abs(one - other) <= 1e-6 * max(abs(one), abs(other))
    return bool(one == other)


def _said(value: Any) -> str:
    return ", ".join(_said(v) for v in value) or "none" if isinstance(value, list | tuple) else f"{value}"


def listed(names: Sequence[str], between: str = ", ") -> str:
    """The first of the names, and the number of the others."""
    more = len(names) - _MOST_NAMED
    return between.join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
