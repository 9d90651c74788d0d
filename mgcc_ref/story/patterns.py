"""Templates with choices: "{the} <walks/runs> <away/off>" stands for four templates.

Many wordings of one meaning are what lets a head trained on them understand a wording that it never saw.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable

import numpy as np

_CHOICE = re.compile(r"<([^<>]*)>")


def every_wording(pattern: str) -> tuple[str, ...]:
    """All templates that `pattern` stands for; itself alone if it leaves no choice."""
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


def weighted(patterns: Iterable[str]) -> tuple[str, ...]:
    """Each pattern as often as a uniform draw should count it: once, and once more a doubling of its wordings."""
    return tuple(p for p in patterns for _ in range(1 + int(math.log2(_count(p)))))


def _count(pattern: str) -> int:
    return math.prod(len(choices.split("/")) for choices in _CHOICE.findall(pattern))
