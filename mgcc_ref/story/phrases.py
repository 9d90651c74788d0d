"""The words of StoryWorld: nouns, places, sizes and backgrounds (shared) and sentence templates (split).

Training draws templates of Split.TRAIN only; StoryBench those of Split.HELD_OUT only.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from mgcc_ref.story import phrases_held_out, phrases_train
from mgcc_ref.story.layout_words import Place, Relation
from mgcc_ref.story.patterns import any_wording, every_wording_of
from mgcc_ref.story.scene import Background, Size

T = TypeVar("T")


class Split(enum.StrEnum):
    """Which templates a text may use."""

    TRAIN = "train"
    HELD_OUT = "held_out"


class Kind(enum.StrEnum):
    """What a sentence does; the values are the names of the banks in both template modules."""

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


_BANKS = {Split.TRAIN: phrases_train, Split.HELD_OUT: phrases_held_out}


@functools.cache
def _patterns(kind: Kind, split: Split) -> tuple[str, ...]:
    return _split_up(getattr(_BANKS[split], kind.value))


@functools.cache
def _specific_patterns(background: Background, split: Split) -> tuple[str, ...]:
    return _split_up(_BANKS[split].SPECIFIC_SETTINGS[background.value])


def _split_up(bank: str) -> tuple[str, ...]:
    return tuple(t.strip() for line in bank.splitlines() for t in line.split("|") if t.strip())


def templates(kind: Kind, split: Split) -> tuple[str, ...]:
    """The templates of `kind` that `split` may use, every wording of every pattern."""
    return every_wording_of(_patterns(kind, split))


def template(kind: Kind, split: Split, rng: np.random.Generator) -> str:
    """One of the `templates`."""
    return any_wording(_patterns(kind, split), rng)


def specific_settings(background: Background, split: Split) -> tuple[str, ...]:
    """Whole sentences without slots that bring the story to `background`, every wording of every pattern."""
    return every_wording_of(_specific_patterns(background, split))


def specific_setting(background: Background, split: Split, rng: np.random.Generator) -> str:
    """One of the `specific_settings`."""
    return any_wording(_specific_patterns(background, split), rng)


#: Nouns of each label, the label itself first. No noun belongs to two labels.
NOUNS: dict[str, tuple[str, ...]] = {
    "cat": ("cat", "kitty", "kitten", "tabby"),
    "dog": ("dog", "puppy", "doggy", "hound"),
    "fox": ("fox", "red fox", "vixen"),
    "lion": ("lion", "king of the animals"),
    "panda": ("panda", "panda bear"),
    "frog": ("frog", "toad"),
    "turtle": ("turtle", "tortoise"),
    "penguin": ("penguin",),
    "bird": ("bird", "sparrow", "songbird"),
    "fish": ("fish", "trout"),
    "butterfly": ("butterfly", "moth"),
    "tree": ("tree", "oak", "leafy tree"),
    "palm tree": ("palm tree", "palm", "coconut palm"),
    "cactus": ("cactus", "prickly cactus"),
    "sunflower": ("sunflower", "yellow flower"),
    "house": ("house", "cottage", "hut"),
    "car": ("car", "automobile"),
    "bus": ("bus", "coach"),
    "sailboat": ("sailboat", "boat", "sailing boat"),
    "rocket": ("rocket", "spaceship", "spacecraft"),
    "bicycle": ("bicycle", "bike"),
    "ball": ("ball", "football", "soccer ball"),
    "balloon": ("balloon", "red balloon"),
    "umbrella": ("umbrella", "parasol"),
    "apple": ("apple", "red apple"),
    "banana": ("banana",),
    "cake": ("cake", "birthday cake"),
    "sun": ("sun",),
    "moon": ("moon", "crescent moon"),
    "star": ("star", "golden star"),
    "gift": ("gift", "present", "parcel"),
    "guitar": ("guitar",),
}

PLACE_PHRASES: dict[Place, tuple[str, ...]] = {
    Place.TOP_LEFT: ("in the top left corner", "at the top left", "in the upper left corner", "on the upper left"),
    Place.TOP: ("at the top", "at the top in the middle", "in the upper middle", "at the top centre"),
    Place.TOP_RIGHT: ("in the top right corner", "at the top right", "in the upper right corner", "on the upper right"),
    Place.LEFT: ("on the left", "on the left side", "at the left edge", "in the middle of the left side"),
    Place.CENTRE: ("in the centre", "in the middle", "at the centre of the picture", "in the very middle"),
    Place.RIGHT: ("on the right", "on the right side", "at the right edge", "in the middle of the right side"),
    Place.BOTTOM_LEFT: (
        "in the bottom left corner",
        "at the bottom left",
        "in the lower left corner",
        "on the lower left",
    ),
    Place.BOTTOM: ("at the bottom", "at the bottom in the middle", "in the lower middle", "at the bottom centre"),
    Place.BOTTOM_RIGHT: (
        "in the bottom right corner",
        "at the bottom right",
        "in the lower right corner",
        "on the lower right",
    ),
}

#: {x} is the anchor, {y} the second anchor.
RELATION_PHRASES: dict[Relation, tuple[str, ...]] = {
    Relation.LEFT_OF: ("left of {x}", "to the left of {x}", "on the left side of {x}", "just left of {x}"),
    Relation.RIGHT_OF: ("right of {x}", "to the right of {x}", "on the right side of {x}", "just right of {x}"),
    Relation.ABOVE: ("above {x}", "over {x}", "just above {x}", "higher up, above {x}"),
    Relation.BELOW: ("below {x}", "just below {x}", "lower down, below {x}"),
    Relation.NEXT_TO: ("next to {x}", "beside {x}", "right next to {x}", "at the side of {x}"),
    Relation.UNDER: ("under {x}", "underneath {x}", "directly under {x}", "beneath {x}"),
    Relation.BETWEEN: ("between {x} and {y}", "in between {x} and {y}", "halfway between {x} and {y}"),
}

SIZE_WORDS: dict[Size, tuple[str, ...]] = {
    Size.SMALL: ("small", "tiny", "little"),
    Size.MEDIUM: ("medium", "medium-sized", "middle-sized"),
    Size.LARGE: ("large", "big", "huge"),
}

SETTING_PHRASES: dict[Background, tuple[str, ...]] = {
    Background.MEADOW: ("in a meadow", "on a green meadow", "in the green hills", "on the grass"),
    Background.BEACH: ("on the beach", "at the beach", "by the sea", "at the seaside"),
    Background.NIGHT: ("out at night", "under the night sky", "in the dark of night", "in the middle of the night"),
    Background.SNOW: ("in the snow", "in the snowy mountains", "in a land of snow", "in a white winter land"),
    Background.DESERT: ("in the desert", "in a hot desert", "among the desert dunes", "in a dry desert"),
    Background.ROOM: ("in a room", "indoors", "inside a room", "in a room with a window"),
}

#: What a story calls a thing that only a picture has shown.
ALIASES: tuple[str, ...] = (
    "my friend",
    "our guest",
    "my best friend",
    "my companion",
    "our visitor",
    "my favourite",
    "my surprise",
    "our helper",
)

_IRREGULAR_PLURALS = {"fish": "fish", "trout": "trout", "king of the animals": "kings of the animals"}


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
