"""Templates with choices: "{the} <walks/runs> <away/off>" stands for four templates.

A head that is trained on many wordings of one meaning also understands wordings that it never saw.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable

import numpy as np

_CHOICE = re.compile(r"<([^<>]*)>")


def every_wording(pattern: str) -> tuple[str, ...]:
    """All templates that `pattern` stands for; only `pattern` if it has no choice."""
    pieces = _CHOICE.split(pattern)  # text, choices, text, ...
    options = [piece.split("/") if i % 2 else [piece] for i, piece in enumerate(pieces)]
    return tuple(" ".join("".join(words).split()) for words in itertools.product(*options))


def one_wording(pattern: str, rng: np.random.Generator) -> str:
    """One of `every_wording`, each as likely; draws no number where there is no choice."""
    if "<" not in pattern:
        return pattern

    def choose(found: re.Match[str]) -> str:
        options = found[1].split("/")
        return options[int(rng.integers(len(options)))]

    return " ".join(_CHOICE.sub(choose, pattern).split())


def every_wording_of(patterns: Iterable[str]) -> tuple[str, ...]:
    """All templates that several patterns stand for."""
    return tuple(wording for pattern in patterns for wording in every_wording(pattern))


def any_wording(patterns: tuple[str, ...], rng: np.random.Generator) -> str:
    """A wording of one of the patterns, drawn with the weights of `weighted`."""
    counted = weighted(patterns)
    return one_wording(counted[int(rng.integers(len(counted)))], rng)


@functools.cache
def weighted(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Each pattern repeated for a uniform draw: once, and once more for each doubling of its wordings."""
    return tuple(p for p in patterns for _ in range(1 + int(math.log2(_count(p)))))


def _count(pattern: str) -> int:
    return math.prod(len(choices.split("/")) for choices in _CHOICE.findall(pattern))
