"""The grounder's training conversations: free tellings, and reworded templates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mgcc_ref.story.telling.apart import keeps_apart
from mgcc_ref.story.telling.rewording import contracted, reworded, with_slips
from mgcc_ref.story.telling.tellings import make_telling
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.train.requests import Conversation, DrawPoint, Points, telling_conversation, training_conversation

TELLING_CHANCE = 0.45  # of a conversation in free words (`story.telling`); the others are made of templates
REWORDED_CHANCE, JOINED_CHANCE, SLIP_CHANCE = 0.6, 0.35, 0.12


def fresh_conversation(seed: int, index: int) -> Conversation:
    """Conversation `index` of the endless set `seed`, which shares no run of words with the validation texts.

    A picture may be asked for after each text. A conversation of texts alone may join several of them in one part.
    """
    rng = np.random.default_rng([seed, index, 2])
    while True:
        found = _telling(rng) if rng.random() < TELLING_CHANCE else _of_templates(seed, rng)
        if all(isinstance(part, str) for part in found.parts) and rng.random() < JOINED_CHANCE:
            found = _joined(found, rng)
        if all(keeps_apart(part) for part in found.parts if isinstance(part, str)):
            return found


def _telling(rng: np.random.Generator) -> Conversation:
    """A telling, sometimes with spelling mistakes."""
    found = telling_conversation(make_telling(rng))

    def written(text: str) -> str:
        text = contracted(text, rng)
        return with_slips(text, rng) if rng.random() < SLIP_CHANCE else text

    return replace(found, parts=tuple(written(p) if isinstance(p, str) else p for p in found.parts))


def _of_templates(seed: int, rng: np.random.Generator) -> Conversation:
    """A conversation of templates; most are reworded."""
    found = training_conversation(seed, int(rng.integers(2**62)), Split.TRAIN, Points.ALL)
    if rng.random() >= REWORDED_CHANCE:
        return found
    return replace(found, parts=tuple(reworded(p, rng) if isinstance(p, str) else p for p in found.parts))


def _joined(conversation: Conversation, rng: np.random.Generator) -> Conversation:
    """Join neighbouring parts at random; points within a joined part are dropped."""
    count = len(conversation.parts)
    ends = [n for n in range(1, count) if rng.random() < 0.4] + [count]
    starts = [0, *ends[:-1]]
    parts = tuple(" ".join(map(str, conversation.parts[a:b])) for a, b in zip(starts, ends, strict=True))
    points = tuple(
        DrawPoint(ends.index(p.parts) + 1, p.target, p.facts) for p in conversation.points if p.parts in ends
    )
    return Conversation(parts, (None,) * len(parts), points)
