"""Notes by logistic regressions: more words tell what a text asks for than rules can list.

`weights.json` is written by `tools/fit_notes.py` from requests of several authors; docs/storybench.md has the scores.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgcc_runtime.notes.features import CONTRADICTED, TOLD, candidates, text_features
from mgcc_runtime.notes.lexicon import Lexicon
from mgcc_runtime.reading import read_json
from mgcc_runtime.results import NoteCode

#: What the rules find stands unless the regression all but excludes it. By unseen authors, half `dev` gained
#: four points of recall and others lost one to four of precision; it is for plain texts without a verb.
_NOT_RULED_OUT = 0.05
WEIGHTS = Path(__file__).with_name("weights.json")


class Question(enum.Enum):
    """What a regression answers with a probability."""

    TOO_MANY = NoteCode.TOO_MANY.value  # does the text ask for more things than fit?
    CONTRADICTION = NoteCode.CONTRADICTION.value  # is a thing at two places at once?
    WANTED = "wanted"  # is this noun to be in the picture?
    COMPOUND = "compound"  # is the word before a wanted noun a part of it?


@dataclass(frozen=True)
class Regression:
    """Weights of features by name, in hundredths, and the probability from which on the answer is yes."""

    bias: float
    weights: Mapping[str, int]
    threshold: float

    def says(self, features: Mapping[str, float]) -> bool:
        """Whether the answer is yes."""
        return self.probability(features) > self.threshold

    def probability(self, features: Mapping[str, float]) -> float:
        """Of yes, in [0, 1]."""
        total = self.bias + sum(self.weights.get(name, 0) * value for name, value in features.items()) / 100
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, total))))


@functools.cache
def regressions() -> dict[Question, Regression]:
    """The committed ones, by their question."""
    found: dict[str, Any] = read_json(WEIGHTS, "weights of the notes")
    return {question: Regression(**found[question.value]) for question in Question}


def wanted_things(
    text: Sequence[Sequence[str]], lexicon: Lexicon, fitted: Mapping[Question, Regression] | None = None
) -> list[str]:
    """Nouns of one text that are to be in the picture and that no label names, in order.

    `fitted`: other regressions than the committed ones.
    """
    by_question = fitted or regressions()
    found = []
    for one in candidates(text, lexicon):
        if one.doubtful and TOLD not in one.features:
            continue
        if by_question[Question.WANTED].says(one.features):
            longer = not one.listed and by_question[Question.COMPOUND].says(one.before)
            found.append(one.compound if longer else one.noun)
    return found


def asks_too_much(
    text: Sequence[Sequence[str]], lexicon: Lexicon, most: int, fitted: Mapping[Question, Regression] | None = None
) -> frozenset[Question]:
    """Which of TOO_MANY and CONTRADICTION hold for a text and a picture of at most `most` things."""
    by_question, features = fitted or regressions(), text_features(text, lexicon, most)
    asked = (Question.TOO_MANY, Question.CONTRADICTION)
    found = {question for question in asked if by_question[question].says(features)}
    if CONTRADICTED in features and by_question[Question.CONTRADICTION].probability(features) > _NOT_RULED_OUT:
        found.add(Question.CONTRADICTION)
    return frozenset(found)
