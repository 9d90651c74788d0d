"""A layout, written token by token under the bundle's masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mgcc_runtime.in_context.files import Ids, Masks
from mgcc_runtime.layout_text import END, Edges, read_layout
from mgcc_runtime.stages import Floats, LlmStep


@dataclass(frozen=True)
class PlacedLabel:
    """A line of a layout. `score`: the geometric mean of its tokens' probabilities among those allowed."""

    label: str
    edges: Edges
    score: float


@dataclass(frozen=True)
class WrittenLayout:
    tokens: tuple[int, ...]
    text: str
    scores: tuple[float, ...]  # one a line

    def objects(self) -> tuple[PlacedLabel, ...]:
        """Each line once: small models repeat themselves, and the same line again adds nothing."""
        found: dict[tuple[str, Edges], float] = {}
        for line, score in zip(read_layout(self.text), self.scores, strict=True):
            found.setdefault(line, score)
        return tuple(PlacedLabel(label, edges, score) for (label, edges), score in found.items())


def write_layout(
    start: LlmStep, lines: int, masks: Masks, spell: Callable[[int], str], follow: Callable[[int, LlmStep], LlmStep]
) -> WrittenLayout:
    """Greedy decoding; ends after at most `lines` lines, whatever the logits are.

    `spell` says what a token adds to the text, `follow` reads it with the language model.
    """
    state, line, left = start, "", lines
    tokens: list[int] = []
    pieces: list[str] = []
    log_probabilities: list[list[float]] = [[] for _ in range(lines + 1)]
    while True:
        token, log_probability = _best(state.logits, masks.allowed(line, left))
        # a token that spans lines counts for the one that it begins in
        log_probabilities[lines - left].append(log_probability)
        tokens.append(token)
        pieces.append(spell(token))
        *finished, line = (line + pieces[-1]).split("\n")
        left -= len(finished)
        if line == END:
            break
        state = follow(token, state)
    scores = tuple(math.exp(sum(p) / max(1, len(p))) for p in log_probabilities[: lines - left])
    return WrittenLayout(tuple(tokens), "".join(pieces), scores)


def _best(logits: Floats, allowed: Ids) -> tuple[int, float]:
    """The likeliest allowed token, and its log probability among the allowed ones."""
    kept = logits[allowed].astype(np.float64)
    best = int(kept.argmax())
    return int(allowed[best]), float(-np.log(np.exp(kept - kept[best]).sum()))
