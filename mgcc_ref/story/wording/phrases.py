"""The words of StoryWorld: nouns, places, sizes and backgrounds (shared, `words.json`) and sentence templates (split).

Training draws templates of Split.TRAIN only. StoryBench draws those of the other two: Split.VALIDATION may choose
weights, and Split.TEST judges the chosen ones once. Each split has a file, `train.json` and so on; `Bank` names its
parts. The test split's templates were written after the others, and share none with them; new templates of other splits
must not be like them. `benchmarks/quality.py --split test` scores with them, and keeps a record of it.

A choice <such/like> this makes several templates of one. Slots of stories: {a} "a large fox", {the} "the fox" or "it",
{where} a place or relation phrase, {setting} a background phrase, {size} a size word, {plural} "balloons", {p1} {p2}
place phrases, {other} another object, {alias} "my friend", {absent} a thing that is not there. Dialogues also have
{things} "a large fox and two cakes", {present} a thing that is there, {number} a count in words; draw turns {a thing}.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from mgcc_ref.story.wording.data import data_file, words_by_name
from mgcc_ref.story.wording.patterns import any_wording, every_wording_of
from mgcc_ref.story.world.layout_words import Place, Relation
from mgcc_ref.story.world.scene import Background, Size

T = TypeVar("T")
_FOLDER = Path(__file__).parent


class Split(enum.StrEnum):
    """The templates that a text may use."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Bank(enum.StrEnum):
    """The parts of a split's file, each with patterns by their meaning."""

    STORIES = "stories"  # by `Kind`
    SETTINGS = "settings"  # by background: whole sentences without slots that bring the story to it
    DIALOGUES = "dialogues"  # questions and answers
    DRAW = "draw"  # a dialogue's lines that ask for a picture, that do not, and that only mention one


class Kind(enum.StrEnum):
    """The event of a sentence; the values are names in the bank of stories."""

    APPEAR_PLACE = "APPEAR_PLACE"
    APPEAR_RELATION = "APPEAR_RELATION"
    MOVE_PLACE = "MOVE_PLACE"
    MOVE_RELATION = "MOVE_RELATION"
    STAND_BY = "STAND_BY"
    LEAVE = "LEAVE"
    LEAVE_BOTH = "LEAVE_BOTH"
    SWAP = "SWAP"
    GROW = "GROW"
    SHRINK = "SHRINK"
    COUNT = "COUNT"
    OPENING = "OPENING"
    TRAVEL = "TRAVEL"
    ALIAS_ALONE = "ALIAS_ALONE"
    ALIAS_JOINS = "ALIAS_JOINS"
    SETTING_SHOWN = "SETTING_SHOWN"
    DISTRACTOR = "DISTRACTOR"
    CONNECTOR = "CONNECTORS"


@functools.cache
def patterns(split: Split, bank: Bank) -> Mapping[str, tuple[str, ...]]:
    """All patterns of a split's bank, by their meaning."""
    found = words_by_name(data_file(_FOLDER / f"{split.value}.json")[bank.value])
    if bank is Bank.STORIES:  # patterns for moves to places also serve for moves beside others
        found[Kind.MOVE_RELATION.value] = found[Kind.MOVE_PLACE.value]
    return found


def templates(kind: Kind, split: Split) -> tuple[str, ...]:
    """All wordings of the patterns of `kind` that `split` may use."""
    return every_wording_of(patterns(split, Bank.STORIES)[kind.value])


def template(kind: Kind, split: Split, rng: np.random.Generator) -> str:
    """One of the `templates`."""
    return any_wording(patterns(split, Bank.STORIES)[kind.value], rng)


def specific_settings(background: Background, split: Split) -> tuple[str, ...]:
    """All wordings of the whole sentences, without slots, that bring the story to `background`."""
    return every_wording_of(patterns(split, Bank.SETTINGS)[background.value])


def specific_setting(background: Background, split: Split, rng: np.random.Generator) -> str:
    """One of the `specific_settings`."""
    return any_wording(patterns(split, Bank.SETTINGS)[background.value], rng)


_WORDS = data_file(_FOLDER / "words.json")
#: Nouns of each label, the label itself first. No noun belongs to two labels.
NOUNS = words_by_name(_WORDS["nouns"])
PLACE_PHRASES = {Place(name): words for name, words in words_by_name(_WORDS["places"]).items()}
#: {x} is the anchor, {y} the second anchor.
RELATION_PHRASES = {Relation(name): words for name, words in words_by_name(_WORDS["relations"]).items()}
SIZE_WORDS = {Size(name): words for name, words in words_by_name(_WORDS["sizes"]).items()}
SETTING_PHRASES = {Background(name): words for name, words in words_by_name(_WORDS["settings"]).items()}
#: Names for a thing that only a picture has shown.
ALIASES: tuple[str, ...] = tuple(_WORDS["aliases"])
_IRREGULAR_PLURALS: Mapping[str, str] = _WORDS["irregular_plurals"]


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """One of `options`, each as likely."""
    return options[int(rng.integers(len(options)))]


def plural(noun: str) -> str:
    """The plural of a noun: "balloons", "butterflies", "foxes"."""
    if noun in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def indefinite(words: str) -> str:
    """The words with their article: "a large fox", "an apple"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def noun_for(label: str, rng: np.random.Generator) -> str:
    """A noun of `label`: the label itself half of the time, else any of its synonyms."""
    return label if rng.random() < 0.5 else pick(NOUNS[label], rng)


def sentence(text: str) -> str:
    """`text` as a sentence: upper-case first letter and a full stop."""
    closed = text if text[-1] in ".!?" else f"{text}."
    return closed[0].upper() + closed[1:]


def fill(kind: Kind, split: Split, rng: np.random.Generator, **slots: str) -> str:
    """A sentence of `kind` with its slots filled, not yet capitalised."""
    return template(kind, split, rng).format(**slots)


def connected(text: str, split: Split, rng: np.random.Generator) -> str:
    """`text` with a connector such as "then" in front of it."""
    return f"{template(Kind.CONNECTOR, split, rng)} {text}"
