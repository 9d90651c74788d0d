"""Choosing the next token from logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.options import TEXT, settle


@dataclass(frozen=True)
class TextOptions:
    """How text is written. The defaults are the reference's: greedy, with a penalty on what was already written."""

    temperature: float = 0.0  # 0: greedy; above: sampling
    top_p: float = 1.0  # sample among the most probable tokens that together reach this probability
    repetition_penalty: float = 1.2  # above 1: tokens already written become less probable

    def __post_init__(self) -> None:
        settle(self, *TEXT)


def text_generator(seed: int) -> np.random.Generator:
    """The random numbers of a request's text, independent of those of its image."""
    return np.random.default_rng([seed, 1])


def wants_picture(logits: NDArray[np.float32], image_ids: Sequence[int]) -> bool:
    """Whether [IMG1] is likelier than all words together, after a turn: the model itself asks to draw.

    `logits` (V,) of the turn's last position; `image_ids` are those of the [IMG] tokens.
    """
    words = np.delete(logits.astype(np.float64), list(image_ids))
    most = words.max()
    return bool(logits[image_ids[0]] > most + np.log(np.exp(words - most).sum()))


def choose_token(
    logits: NDArray[np.float32],
    written: Sequence[int],
    forbidden: Sequence[int],
    options: TextOptions,
    generator: np.random.Generator,
) -> int:
    """The next token id. `logits` (V,); `written` are the ids of this answer so far; `forbidden` are never chosen."""
    scores = logits.copy()
    if options.repetition_penalty != 1 and written:
        seen = np.unique(np.asarray(written, np.int64))
        found = scores[seen]
        scores[seen] = np.where(found > 0, found / options.repetition_penalty, found * options.repetition_penalty)
    scores[list(forbidden)] = -np.inf
    if options.temperature == 0:
        return int(np.argmax(scores))
    with np.errstate(over="ignore"):  # of a temperature near 0: all but the likeliest token get a probability of 0
        scaled = (scores.astype(np.float64) - scores.max()) / options.temperature
    probabilities = np.exp(scaled)
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    reached = np.cumsum(probabilities[order])
    # the first token that reaches top_p is kept too
    count = int(np.searchsorted(reached, options.top_p)) + 1
    kept = order[:count]
    weights = probabilities[kept] / probabilities[kept].sum()
    return int(generator.choice(kept, p=weights))
