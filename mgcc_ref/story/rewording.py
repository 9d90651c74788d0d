"""Training texts in more words than templates have: other phrases of the same meaning, asides, and slips of the pen.

The narrators' vocabulary is shared with StoryBench's items, so it stays, and finished texts are reworded. Meaning never
changes: a phrase is replaced by one that puts the thing in the same place.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from mgcc_ref.story.mentions import any_of, mentions_in
from mgcc_ref.story.phrases import NOUNS, pick, plural

PHRASE_CHANCE, NOUN_CHANCE = 0.4, 0.15
ASIDE_CHANCE, OPENER_CHANCE = 0.12, 0.15
LOWER_CASE_CHANCE, SLIP_CHANCE = 0.08, 0.2
_SHORTEST_SLIP = 4  # letters of a word that may be misspelt

#: Nouns that no template says.
MORE_NOUNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cat": ("tomcat", "pussycat", "moggy", "kitty cat"),
        "dog": ("pup", "terrier", "spaniel", "doggie"),
        "fox": ("foxy",),
        "lion": ("lioness",),
        "panda": ("giant panda",),
        "frog": ("bullfrog", "green frog"),
        "penguin": ("king penguin",),
        "bird": ("robin", "blackbird", "finch", "birdie"),
        "fish": ("goldfish", "salmon"),
        "butterfly": ("blue butterfly",),
        "tree": ("maple", "oak tree", "old tree"),
        "palm tree": ("date palm", "tall palm"),
        "cactus": ("tall cactus",),
        "sunflower": ("yellow bloom", "tall sunflower"),
        "house": ("cabin", "bungalow", "home"),
        "car": ("sedan", "motor car", "red car", "taxi"),
        "bus": ("school bus", "double-decker"),
        "sailboat": ("yacht", "dinghy", "ship", "sailing ship"),
        "rocket": ("space rocket", "rocket ship"),
        "bicycle": ("push bike", "two-wheeler", "cycle"),
        "ball": ("soccer ball", "leather ball"),
        "balloon": ("party balloon", "toy balloon"),
        "umbrella": ("brolly", "sunshade"),
        "cake": ("birthday cake", "layer cake", "gateau"),
        "sun": ("bright sun", "yellow sun"),
        "moon": ("half moon", "new moon"),
        "star": ("shining star", "bright star"),
        "gift": ("wrapped present", "package", "birthday present"),
        "guitar": ("acoustic guitar", "old guitar"),
    }
)

#: What a template says -> what else means the same.
PHRASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "in the top left corner": ("in the top-left corner", "high up in the left-hand corner"),
        "at the top left": ("top left", "up on the left, at the very top", "at the upper left", "high up on the left"),
        "in the upper left corner": ("tucked into the top left", "in the left corner, right at the top"),
        "on the upper left": ("in the top left", "towards the top left", "at top left"),
        "at the top": ("at the very top", "right at the top", "up at the top", "high up", "way up top"),
        "at the top in the middle": ("top centre", "up at the top, halfway across", "in the middle at the top"),
        "in the upper middle": ("at the top, right in the middle", "in the top middle"),
        "in the top right corner": ("in the top-right corner", "high up in the right-hand corner"),
        "at the top right": ("top right", "up on the right, at the very top", "high up on the right"),
        "in the upper right corner": ("tucked into the top right", "in the right corner, right at the top"),
        "on the upper right": ("in the top right", "towards the top right", "at top right"),
        "on the left": ("on the left-hand side", "to the left", "over on the left", "on the far left", "left",
                        "close to the left edge"),
        "on the left side": ("on its left-hand side", "along the left edge", "at the left"),
        "at the left edge": ("by the left edge", "hard by the left border", "all the way to the left"),
        "in the centre": ("dead centre", "right in the centre", "bang in the middle", "in the very centre"),
        "in the middle": ("right in the middle", "smack in the middle", "halfway across", "in the middle of it all"),
        "at the centre of the picture": ("in the middle of the picture", "in the heart of the picture"),
        "on the right": ("on the right-hand side", "to the right", "over on the right", "on the far right",
                         "off to the right", "close to the right edge", "right"),
        "on the right side": ("on its right-hand side", "along the right edge", "at the right",
                              "on the right of the picture"),
        "at the right edge": ("by the right edge", "hard by the right border", "all the way to the right"),
        "in the bottom left corner": ("in the bottom-left corner", "low down in the left-hand corner",
                                      "down in the left corner"),
        "at the bottom left": ("bottom left", "down on the left, at the very bottom", "at the lower left"),
        "in the lower left corner": ("tucked into the bottom left", "in the left corner, right at the bottom"),
        "on the lower left": ("in the bottom left", "towards the bottom left", "at bottom left"),
        "at the bottom": ("at the very bottom", "right at the bottom", "down at the bottom", "low down", "way down"),
        "at the bottom in the middle": ("bottom centre", "down at the bottom, halfway across"),
        "in the lower middle": ("at the bottom, right in the middle", "in the bottom middle"),
        "in the bottom right corner": ("in the bottom-right corner", "low down in the right-hand corner",
                                       "down in the right corner"),
        "at the bottom right": ("bottom right", "down on the right, at the very bottom", "at the lower right"),
        "in the lower right corner": ("tucked into the bottom right", "in the right corner, right at the bottom"),
        "on the lower right": ("in the bottom right", "towards the bottom right", "at bottom right"),
        "to the left of": ("on the left of", "over to the left of", "a bit to the left of", "left of"),
        "to the right of": ("on the right of", "over to the right of", "a bit to the right of", "right of"),
        "above": ("right above", "directly above", "straight above", "up above", "hovering above"),
        "below": ("right below", "directly below", "straight below", "down below"),
        "next to": ("alongside", "by the side of", "close by", "right beside"),
        "beside": ("next door to", "by", "alongside"),
        "underneath": ("right underneath", "straight under"),
        "in between": ("right between", "in the gap between"),
        "is gone": ("has gone", "isn't there any more", "is nowhere to be seen"),
        "goes away": ("takes off", "clears off", "heads off and won't be back", "is off"),
        "goes home": ("heads home", "sets off for home", "goes back home"),
        "swap places": ("trade places", "change over", "switch round"),
        "there is": ("there's", "you'll find", "there has to be"),
        "it is": ("it's",),
        "does not": ("doesn't",),
        "I would like": ("I'd like", "I'd love", "can I have"),
        "in the snow": ("in deep snow", "where snow lies all around", "on a wintry day in the snow"),
        "in the snowy mountains": ("up in the snow-covered hills", "in the cold white mountains"),
        "on the beach": ("down on the beach", "on a sandy beach", "on the sand by the waves"),
        "by the sea": ("by the seaside", "at the water's edge", "down by the ocean"),
        "in the desert": ("out in the desert", "among dry sand dunes", "in the hot sand of the desert"),
        "in a room": ("in the living room", "in my bedroom", "in the lounge", "in the kitchen"),
        "indoors": ("inside the house", "in our front room"),
        "in a meadow": ("in the green grass", "on a grassy hill", "in a field"),
        "out at night": ("at midnight", "late at night", "after dark", "when all are asleep at night"),
        "under the night sky": ("under a dark sky", "beneath the night sky", "one dark night"),
    }
)  # fmt: skip

OPENERS = (
    "So", "Well", "Okay", "Right then", "Hm", "Now then", "Guess what", "Listen", "By the way", "All right",
    "Let's see", "Oh", "And so", "Anyway", "Actually", "One more thing", "Hooray", "You know what",
)  # fmt: skip
ASIDES = (
    "what a day", "how lovely", "nobody knows why", "that was quick", "isn't that nice", "the weather is fine",
    "it took a while", "everybody claps", "we all laughed", "my gran told me so", "I promise", "that's all for now",
    "it was quiet", "what could be better", "just like last year", "or so they say", "time went by",
)  # fmt: skip


def reworded(text: str, rng: np.random.Generator) -> str:
    """The same in other words, with an aside or a slip now and then."""
    text = _other_phrases(_other_nouns(text, rng), rng)
    if rng.random() < OPENER_CHANCE:
        text = f"{pick(OPENERS, rng)}, {text[0].lower() if text[:2] != 'I ' else 'I'}{text[1:]}"
    if rng.random() < ASIDE_CHANCE:
        aside = pick(ASIDES, rng)
        text = f"{text} {aside[0].upper()}{aside[1:]}." if rng.random() < 0.5 else f"{text.rstrip('.')}, {aside}."
    if rng.random() < SLIP_CHANCE:
        text = _with_slips(text, rng)
    return text.lower().rstrip(".") if rng.random() < LOWER_CASE_CHANCE else text


@functools.cache
def _phrase_pattern() -> re.Pattern[str]:
    return any_of(PHRASES)


def _other_phrases(text: str, rng: np.random.Generator) -> str:
    def replace(found: re.Match[str]) -> str:
        if rng.random() >= PHRASE_CHANCE:
            return found[0]
        other = pick(PHRASES.get(found[0], PHRASES.get(found[0].lower(), (found[0],))), rng)
        return other[0].upper() + other[1:] if found[0][0].isupper() else other

    return _phrase_pattern().sub(replace, text)


def _other_nouns(text: str, rng: np.random.Generator) -> str:
    """One article fits two words only by chance, so it is set anew."""
    pieces, end = [], 0
    for mention in mentions_in(text):
        said = text[mention.start : mention.end]
        others = MORE_NOUNS.get(mention.label, ())
        if not others or rng.random() >= NOUN_CHANCE:
            continue
        other = pick(others, rng)
        singular = said.lower() in NOUNS[mention.label]
        pieces += [text[end : mention.start], other if singular else plural(other)]
        end = mention.end
    return _ARTICLE.sub(_fitting_article, "".join([*pieces, text[end:]]))


_ARTICLE = re.compile(r"\b([Aa])n? (?=([A-Za-z]))")


def _fitting_article(found: re.Match[str]) -> str:
    return f"{found[1]}{'n' if found[2].lower() in 'aeiou' else ''} "


def _with_slips(text: str, rng: np.random.Generator) -> str:
    """One or two words misspelt: a letter lost, doubled, or two of them swapped."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= _SHORTEST_SLIP and word.isalpha()]
    for i in rng.permutation(long)[: 1 + int(rng.random() < 0.4)]:
        words[i] = _misspelt(words[i], rng)
    return " ".join(words)


def _misspelt(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(word) - 1))
    kind = int(rng.integers(3))
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
