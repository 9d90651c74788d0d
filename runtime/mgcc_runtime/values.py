"""Checks of single values that a caller gives, and how a refused one is shown. Light: a command line needs them."""

from __future__ import annotations

import math
import numbers
import operator
from typing import TypeGuard

_MOST_SHOWN = 60  # characters


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number; numpy's scalars are, True and False are not."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(float(value))
    except (OverflowError, TypeError, ValueError):  # an int that no float can hold; numpy's timedelta64
        return False


def is_whole(value: object) -> TypeGuard[int]:
    """Whether `value` is an integer; numpy's are, True, False and 3.0 are not."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return False
    try:
        operator.index(value)
    except TypeError:  # numpy's timedelta64 counts itself among the integers
        return False
    return True


def shown(value: object) -> str:
    """A value that somebody gave, as an error may show it: in one line of bounded length."""
    try:
        text = " ".join(repr(_plain(value)).split())
    except Exception:  # noqa: BLE001 - anything's own words for itself; Python itself prints no number of 5,000 digits
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _plain(value: object) -> object:
    """A number as Python's own, so that it is shown alike whoever made it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if is_whole(value) else float(value)
