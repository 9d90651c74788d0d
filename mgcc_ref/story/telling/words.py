"""The words that free tellings are made of: data files, inflected and picked by register.

A pattern is written as in `wording/patterns.py`, with verbs in brackets: [sit] takes the telling's tense, [sit*] the
plural, [stand@] and [go@] a verb that suits the thing's class (a fox sits, a moon hangs), [standing@] its participle.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mgcc_ref.story.wording.data import data_file
from mgcc_ref.story.wording.mentions import Mention, any_of
from mgcc_ref.story.wording.patterns import any_wording
from mgcc_ref.story.wording.phrases import NOUNS, pick, plural

_REGISTER_CHANCE = 0.55  # of a wording in the telling's own register, if there is one
_VERB = re.compile(r"\[([a-z]+)([*@]?)\]")


class Register(enum.StrEnum):
    """The style of a telling. All clauses have plain wordings, some have wordings of other registers."""

    PLAIN = "plain"
    CHILD = "child"
    TERSE = "terse"
    LITERARY = "literary"
    CHATTY = "chatty"


class Tense(enum.Enum):
    """Indices of the singular and the plural among a verb's forms."""

    PRESENT = (0, 1)
    PAST = (2, 3)


_PARTICIPLE = 4  # index among a verb's forms


def data(name: str) -> Mapping[str, Any]:
    """The data file `name`.json of this folder."""
    return data_file(Path(__file__).with_name(f"{name}.json"))


@functools.cache
def class_of(label: str) -> str:
    """The class of a label: animal, plant, vehicle, sky, food or thing."""
    return next(name for name, labels in data("nouns")["class"].items() if label in labels)


@functools.cache
def nouns_of(label: str) -> tuple[str, ...]:
    """All nouns of a label, those of the templates first."""
    return (*NOUNS[label], *data("nouns")["of"].get(label, ()))


@functools.cache
def label_of_form() -> Mapping[str, str]:
    """Label of every noun, singular or plural."""
    every = ((form, label) for label in NOUNS for noun in nouns_of(label) for form in (noun, plural(noun)))
    return dict(every)


@functools.cache
def noun_pattern() -> re.Pattern[str]:
    return any_of(label_of_form())


def every_mention_in(text: str) -> Iterator[Mention]:
    """`mentions_in` with the nouns of tellings too."""
    for match in noun_pattern().finditer(text):
        yield Mention(label_of_form()[match.group().lower()], match.start(), match.end())


@functools.cache
def bank(kind: str, register: Register) -> tuple[str, ...]:
    """The patterns of a kind of clause in one register; may be empty."""
    return tuple(data("clauses")[kind].get(register.value, ()))


@dataclass(frozen=True)
class Voice:
    """The register and tense of one telling."""

    register: Register
    tense: Tense

    def pattern(self, kind: str, rng: np.random.Generator) -> str:
        """A wording of `kind` with unfilled slots and verbs."""
        own = bank(kind, self.register)
        plain = bank(kind, Register.PLAIN)
        if own and (not plain or rng.random() < _REGISTER_CHANCE):
            return any_wording(own, rng)
        return any_wording(plain, rng)

    def inflected(self, pattern: str, label: str | None, rng: np.random.Generator) -> str:
        """`pattern` with its verbs in this tense, for a thing of `label`."""
        verbs = data("verbs")

        def replace(found: re.Match[str]) -> str:
            verb, mark = found[1], found[2]
            if mark == "@":
                participle, kind = verb == "standing", "go" if verb == "go" else "stand"
                choices = verbs[kind][class_of(label) if label else "thing"]
                chosen = pick(choices, rng)
                return str(verbs["forms"][chosen][_PARTICIPLE if participle else self.tense.value[0]])
            return str(verbs["forms"][verb][self.tense.value[1 if mark == "*" else 0]])

        return _VERB.sub(replace, pattern)


def any_voice(rng: np.random.Generator) -> Voice:
    """A random voice: plain for two in five tellings, in the past tense for a third."""
    others = [r for r in Register if r is not Register.PLAIN]
    register = Register.PLAIN if rng.random() < 0.4 else pick(others, rng)
    return Voice(register, Tense.PAST if rng.random() < 0.33 else Tense.PRESENT)
