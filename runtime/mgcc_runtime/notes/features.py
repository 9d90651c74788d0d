"""What the learned notes look at: features of a text, and of each noun in it that no label names.

A feature is a name with a value; its weight is in `weights.json`, and a name without a weight counts nothing.
All is gathered in one pass with windows of fixed width, since a text without marks is one sentence, however long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mgcc_runtime.notes.asking import Clauses, unknown_things
from mgcc_runtime.notes.counting import asked_numbers
from mgcc_runtime.notes.lexicon import Lexicon, Mention, numbers, often_told, people, singular_of, words_of
from mgcc_runtime.notes.places import contradicted

Features = dict[str, float]
Sentences = Sequence[Sequence[str]]

#: Features of what the rules find: places that exclude each other, and a thing that is asked for.
CONTRADICTED, TOLD = "contradicted", "told"
_SAME = {
    "over": "above", "atop": "above", "underneath": "below", "under": "below", "beneath": "below", "higher": "above",
    "lower": "below", "upper": "top", "1": "one", "single": "one", "1x": "one",
}  # fmt: skip
_OPPOSITE = (("left", "right"), ("above", "below"), ("top", "bottom"), ("front", "behind"), ("before", "behind"))
#: Words that insist on one thing at two places, or that say it moved or was corrected.
_INSIST = (
    "one", "same", "both", "at_once", "also", "no", "then", "now", "too", "only", "simultaneously", "moment", "time",
    "sorry", "meant",
)  # fmt: skip
_SHORTEST = 3  # letters of a noun that no list holds
_NEAR, _BAG = 4, 10  # words around a noun that are told by their distance, and by their side alone
_NEXT_DOOR = 24  # words of the sentences before and after
_LONGEST_SENTENCE = 6  # in fours of words; longer ones count the same


@dataclass(frozen=True)
class Candidate:
    """A noun at words[start:end] of a sentence that no label names, and the features that tell whether it is wanted."""

    noun: str  # singular
    listed: bool  # the lexicon has it
    doubtful: bool  # more often told of than asked for, as clocks are: the rules have to agree
    features: Features
    before: Features  # of the word before it: whether it is a part of the noun ("cement mixer")
    compound: str  # the noun with that word


def text_features(text: Sentences, lexicon: Lexicon, most: int) -> Features:
    """Of one text: its words in ones, twos and threes, what lies opposite, and what the rules of the notes find."""
    words = [word for sentence in text for word in (*_classed(sentence, lexicon, most), "</s>")]
    found = {"_".join(words[i : i + n]): 1.0 for n in (1, 2, 3) for i in range(len(words) - n + 1)}
    count = Counter(words)
    for one, other in _OPPOSITE:
        if count[one] and count[other]:
            found |= {f"&{one}{other}": 1.0, "&opposite": 1.0}
            found |= {f"&opposite+{word}": 1.0 for word in _INSIST if count[word]}
    found |= {f"2x{place}": 1.0 for place in ("above", "below", "left", "right", "behind") if count[place] > 1}
    labels = Counter(m.label for sentence in text for m in lexicon.mentions(sentence) if m.label)
    asked = sum(asked_numbers(text, lexicon).values())
    found[f"kinds{min(len(labels), 9)}"] = 1.0
    found[f"asked{'>most' if asked > most else min(asked, 9)}"] = 1.0
    if labels and max(labels.values()) > 1:
        found["twice"] = 1.0
    if contradicted(text, lexicon):
        found[CONTRADICTED] = 1.0
    if any(unknown_things(sentence, lexicon) for sentence in text):
        found["unknown"] = 1.0
    return found


def _classed(sentence: Sequence[str], lexicon: Lexicon, most: int) -> Iterator[str]:
    """The words, nouns and numbers as their classes: @S, @P (one, several of a label), @U (no label), #big, #small."""
    mentions = {m.start: m for m in lexicon.mentions(sentence)}
    at = 0
    while at < len(sentence):
        mention, word = mentions.get(at), sentence[at]
        at = mention.end if mention else at + 1
        if mention:
            yield ("@P" if mention.plural else "@S") if mention.label else "@U"
        elif word.isdigit() and word != "1":
            yield "#big" if len(word) > 6 or int(word) > most else "#small"
        elif word in numbers() and word not in ("one", "a", "an"):
            yield "#big" if numbers()[word] > most else "#small"
        else:
            yield _SAME.get(word, word)


def candidates(text: Sentences, lexicon: Lexicon) -> Iterator[Candidate]:
    """Every noun of a text that no label names, and every other word that may be one."""
    for number, sentence in enumerate(text):
        around = {f"B{word}": 1.0 for before in text[max(0, number - 1) : number] for word in before[-_NEXT_DOOR:]}
        around |= {f"A{word}": 1.0 for after in text[number + 1 : number + 2] for word in after[:_NEXT_DOOR]}
        around |= {
            f"sentences{min(len(text), 4)}": 1.0,
            f"last{number == len(text) - 1}": 1.0,
            f"first{number == 0}": 1.0,
            f"long{min(len(sentence) // 4, _LONGEST_SENTENCE)}": 1.0,
        }
        yield from _of_sentence(sentence, lexicon, around)


def _of_sentence(sentence: Sequence[str], lexicon: Lexicon, around: Features) -> Iterator[Candidate]:
    mentions = {m.start: m for m in lexicon.mentions(sentence)}
    told, clauses = set(unknown_things(sentence, lexicon)), Clauses(sentence)
    shown = [_shown(word, mentions.get(at)) for at, word in enumerate(sentence)]
    at = 0
    while at < len(sentence):
        word, mention = sentence[at], mentions.get(at)
        start, at = at, mention.end if mention else at + 1
        if (mention and mention.label) or not (mention or (word.isalpha() and len(word) >= _SHORTEST)):
            continue
        noun = mention.noun if mention else singular_of(word)
        features = _near(sentence, shown, start, at, "U" if mention else "O")
        features |= _of_noun(noun, sentence[start:at], listed=mention is not None)
        if mention and clauses.ask_for(mention):
            features["asked"] = 1.0
        if noun in told or word in told:
            features[TOLD] = 1.0
        before = sentence[start - 1] if start else ""
        yield Candidate(
            noun,
            mention is not None,
            noun in often_told(),
            features | around,
            _of_pair(sentence, start),
            f"{before} {noun}".strip(),
        )


def _shown(word: str, mention: Mention | None) -> str:
    return word if mention is None else "@L" if mention.label else "@U"


def _near(sentence: Sequence[str], shown: Sequence[str], start: int, end: int, kind: str) -> Features:
    """The words around [start, end), by distance and by side."""
    found: Features = {f"kind{kind}": 1.0}

    def word(at: int) -> str:
        return "<s>" if at < 0 else "</s>" if at >= len(shown) else shown[at]

    for away in range(1, _NEAR + 1):
        found |= {f"-{away}{word(start - away)}": 1.0, f"+{away}{word(end + away - 1)}": 1.0}
    one, two, following = word(start - 1), word(start - 2), word(end)
    found |= {f"{kind}-1{one}": 1.0, f"{kind}-2{two}": 1.0, f"pp{two}_{one}": 1.0, f"pn{one}_{following}": 1.0}
    found[f"nn{following}_{word(end + 1)}"] = 1.0
    found |= {f"<{w}": 1.0 for w in sentence[max(0, start - _BAG) : start]}
    found |= {f">{w}": 1.0 for w in sentence[end : end + _BAG]}
    if start == 0 or (start == 1 and sentence[0] in ("a", "an", "the")):
        found["starts"] = 1.0
    return found


def _of_noun(noun: str, words: Sequence[str], *, listed: bool) -> Features:
    last = words[-1]
    lists = ("common", "place_words", "posture", "determiners", "not_asked")
    found = {f"...{last[-3:]}": 1.0, f"..{last[-2:]}": 1.0, f"noun:{noun}": 1.0}
    flags = {
        "plural": last != noun.rpartition(" ")[2],
        "common": not listed and any(words[0] in words_of(name) for name in lists),
        "often": noun in often_told(),
        "people": noun in people(),
    }
    return found | {name: 1.0 for name, holds in flags.items() if holds}


def _of_pair(sentence: Sequence[str], start: int) -> Features:
    """The word before a noun: whether it is a part of it, or an article, an adjective, a verb."""
    one = sentence[start - 1] if start else "<s>"
    two = sentence[start - 2] if start > 1 else "<s>"
    return {
        f"-1{one}": 1.0, f"...{one[-3:]}": 1.0, f"..{one[-2:]}": 1.0, f"-2{two}": 1.0, f"noun{sentence[start]}": 1.0,
        f"letters{one.isalpha()}": 1.0,
    }  # fmt: skip
