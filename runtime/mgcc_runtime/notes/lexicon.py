"""The nouns that notes know: a bundle's labels with their synonyms, and things that people ask for and no label names.

`words.json` holds them, and the words that tell whether a thing is asked for or only spoken of.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgcc_runtime.reading import read_json

_LONGEST = 4  # words of a noun
_WORD = re.compile(r"[a-z]+n't|[a-z0-9]+(?:-[a-z0-9]+)*|'s|'d|'ll|[.!?;:,()]")
_END_OF_SENTENCE = frozenset(".!?;")
_IRREGULAR = {
    "mouse": "mice", "goose": "geese", "wolf": "wolves", "knife": "knives", "ox": "oxen", "sheep": "sheep",
    "man": "men", "woman": "women", "child": "children", "deer": "deer", "fish": "fish", "trout": "trout",
    "salmon": "salmon", "cactus": "cactuses", "shelf": "shelves", "loaf": "loaves",
}  # fmt: skip


@dataclass(frozen=True)
class Mention:
    """A noun at words[start:end] of a sentence; `label` is "" for a thing that the bundle does not know."""

    noun: str  # singular
    label: str
    start: int
    end: int
    plural: bool


@functools.cache
def words_of(name: str) -> frozenset[str]:
    """A list of `words.json`."""
    return frozenset(_data()[name].split(", "))


@functools.cache
def numbers() -> dict[str, int]:
    """Number words, "twenty-four" among them."""
    words = dict(_data()["numbers"])
    tens = {word: n for word, n in words.items() if n in range(20, 100, 10)}
    units = {"one": 1, **{word: n for word, n in words.items() if n in range(2, 10)}}
    return words | {f"{ten}-{unit}": tens[ten] + units[unit] for ten in tens for unit in units}


@functools.cache
def _figures_of_speech() -> re.Pattern[str]:
    """ "the elephant in the room": sayings that name a thing and mean none."""
    sayings = sorted(words_of("figures_of_speech"), key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(map(re.escape, sayings)) + r")\b")


@functools.cache
def people() -> frozenset[str]:
    """Nouns of people, who tell stories more often than they are asked for."""
    return frozenset(_data()["things"]["people"].split(", "))


@functools.cache
def often_told() -> frozenset[str]:
    """Nouns of things that are more often told of than asked for, such as clocks, which strike in stories."""
    return words_of("often_told")


@functools.cache
def _data() -> dict[str, Any]:
    found: dict[str, Any] = read_json(Path(__file__).with_name("words.json"), "word list")
    return found


def plural_of(noun: str) -> str:
    """The plural: "mice", "sailing boats"."""
    *before, last = noun.split(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "es" if last.endswith(("s", "x", "ch", "sh")) else "s"
    return " ".join([*before, last])


def singular_of(word: str) -> str:
    """Of a noun that no list holds, as far as its ending tells: "samovars", "berries", "finches"."""
    if word.endswith("ies") and len(word) > len("pies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


class Lexicon:
    """The nouns of one bundle's `labels`."""

    def __init__(self, labels: Sequence[str]) -> None:
        synonyms = _data()["synonyms"]
        self._forms: dict[tuple[str, ...], tuple[str, str, bool]] = {}
        for group in _data()["things"].values():
            for noun in group.split(", "):
                self._add(noun, "")
        for label, others in synonyms.items():
            for noun in (label, *filter(None, others.split(", "))):
                self._add(noun, label if label in labels else "")
        for label in labels:  # a label that this list has never heard of is known all the same
            self._add(label.lower(), label)

    def _add(self, noun: str, label: str) -> None:
        for form in dict.fromkeys((noun, plural_of(noun), f"{noun}s")):  # "butterflys" is a plural, too
            self._forms[tuple(form.split(" "))] = (noun, label, form != noun)

    @functools.cached_property
    def known_words(self) -> tuple[str, ...]:
        """Single words for what the bundle draws."""
        return tuple(form[0] for form, (_, label, _) in self._forms.items() if label and len(form) == 1)

    def mentions(self, sentence: Sequence[str]) -> list[Mention]:
        """Every noun of the sentence, the longest first where one lies in another: "palm tree" is no tree."""
        found, at = [], 0
        while at < len(sentence):
            for length in range(min(_LONGEST, len(sentence) - at), 0, -1):
                form = self._forms.get(tuple(sentence[at : at + length]))
                if form is not None:
                    noun, label, is_plural = form
                    found.append(Mention(noun, label, at, at + length, is_plural))
                    at += length
                    break
            else:
                at += 1
        return found


@functools.lru_cache(maxsize=4)
def lexicon_of(labels: tuple[str, ...]) -> Lexicon:
    """The lexicon of a bundle's labels, made once."""
    return Lexicon(labels)


def sentences_of(text: str) -> list[list[str]]:
    """The sentences' words in small letters, marks between them as words of their own."""
    folded = text.lower().replace("’", "'")
    folded = _figures_of_speech().sub(" ", folded)
    folded = re.sub(r"\b(left|right) from\b", r"\1 of", folded)
    folded = re.sub(r"\b(top|bottom|upper|lower)-(left|right)\b", r"\1 \2", folded)
    found: list[list[str]] = [[]]
    for word in _WORD.findall(re.sub(r"\n+", " . ", folded)):
        if word in _END_OF_SENTENCE:
            found.append([])
        else:
            found[-1].append(word)
    joined: list[list[str]] = []
    for sentence in filter(None, found):
        if joined and sentence[0] in ("or", "nor"):
            joined[-1] += sentence  # "No snake, please. Or a spider."
        else:
            joined.append(sentence)
    return joined
