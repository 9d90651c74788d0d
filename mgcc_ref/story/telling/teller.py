"""A teller holds a world and says clauses about it; `tellings.py` chooses the events."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from mgcc_ref.story.placing import free_label
from mgcc_ref.story.telling.state import Departed, World
from mgcc_ref.story.telling.words import Voice, class_of, data, nouns_of
from mgcc_ref.story.wording.phrases import SIZE_WORDS, indefinite, pick, plural
from mgcc_ref.story.world.facts import Member
from mgcc_ref.story.world.layout_words import Place, Relation, place_of
from mgcc_ref.story.world.scene import Background, Size

_PRONOUN_CHANCE, _BY_PLACE_CHANCE, _CLASS_NAME_CHANCE, _OTHER_ONE_CHANCE = 0.35, 0.08, 0.08, 0.12
_OTHER_NOUN_CHANCE, _LABEL_CHANCE, _ADJECTIVE_CHANCE, _GENDERED_CHANCE = 0.15, 0.4, 0.2, 0.35
_OF_FOCUS_CHANCE = 0.5
_PRONOUNS = {"it": ("it", "its", "it"), "he": ("he", "his", "him"), "she": ("she", "her", "her")}
_SIDES = {Place.LEFT: 0, Place.RIGHT: 0, Place.TOP: 1, Place.BOTTOM: 1}
_ARTICLE = re.compile(r"\b([Aa])n? (?=([A-Za-z]+))")
_SPOKEN_VOWEL = re.compile(r"(?!one|uni|us[eu]|eu)[aeiou]|hour|hono|heir", re.IGNORECASE)


@dataclass(frozen=True)
class Said:
    """A clause that was said: its kind, its text, and all slots given, used by its pattern or not."""

    kind: str
    text: str
    slots: dict[str, str]


class Teller:
    """Says what happens in `world`, in one voice; `said` holds all clauses in order."""

    def __init__(self, world: World, voice: Voice, rng: np.random.Generator) -> None:
        self.world, self.voice, self.rng = world, voice, rng
        self.said: list[Said] = []

    def say(self, kind: str, label: str | None = None, **slots: str) -> str:
        """A clause of `kind`. A slot `the` of "he" or "she" becomes "the" and the noun unless it begins the pattern."""
        pattern = self.voice.inflected(self.voice.pattern(kind, self.rng), label, self.rng)
        shown = dict(slots)
        if shown.get("the") in ("he", "she") and not pattern.startswith("{the}"):
            shown["the"] = f"the {slots['bare_noun']}"
        text = fitting_articles(pattern.format_map(shown))
        self.said.append(Said(kind, text, shown))
        return text

    # -- nouns -----------------------------------------------------------------------------------------------------

    def noun(self, label: str) -> str:
        """A noun for a thing: often its label."""
        return label if self.rng.random() < _LABEL_CHANCE else pick(nouns_of(label), self.rng)

    def gender(self, label: str) -> str:
        """ "it", or for some animals "he" or "she"."""
        gendered = class_of(label) == "animal" and self.rng.random() < _GENDERED_CHANCE
        return pick(("he", "she"), self.rng) if gendered else "it"

    def size(self) -> tuple[Size, str]:
        """A size and its word; medium has none."""
        if self.rng.random() < 0.7:
            return Size.MEDIUM, ""
        size = pick((Size.SMALL, Size.LARGE), self.rng)
        return size, pick(SIZE_WORDS[size], self.rng)

    def new_words(self, label: str, noun: str, size_word: str) -> dict[str, str]:
        """Slots of a newcomer: "a small sleepy fox", and without the article."""
        adjective = ""
        if self.rng.random() < _ADJECTIVE_CHANCE:
            adjective = pick(data("nouns")["adjectives"][class_of(label)], self.rng)
        bare = " ".join(word for word in (size_word, adjective, noun) if word)
        return {"a": indefinite(bare), "noun": bare, "bare_noun": bare, "a_pron": "it"}

    def absent(self) -> dict[str, str]:
        """Slots of a thing that is not in the world."""
        noun = self.noun(free_label(self.world.cast, self.rng))
        return {"absent": indefinite(noun), "bare_absent": noun, "absent_plural": plural(noun)}

    # -- references --------------------------------------------------------------------------------------------------

    def reference(self, member: Member, *, short: bool = True) -> dict[str, str]:
        """Slots of a member; `short` allows pronouns and the like."""
        noun = self.world.nouns[member.key]
        if self.rng.random() < _OTHER_NOUN_CHANCE:
            noun = self.noun(member.label)
        it, its, him = _PRONOUNS[self.world.genders[member.key]]
        the = (self._short(member) if short else None) or f"the {noun}"
        return {"the": the, "it": it, "its": its, "him": him, "bare_the": noun, "bare_noun": noun,
                "a_the": indefinite(noun), "plural": plural(noun)}  # fmt: skip

    def other(self, member: Member) -> dict[str, str]:
        """Slots of a second member in the same clause."""
        noun = self.world.nouns[member.key]
        return {"other": f"the {noun}", "bare_other": noun}

    def old(self, gone: Departed) -> dict[str, str]:
        """Slots of a thing that left."""
        it, its, him = _PRONOUNS[gone.gender]
        return {"old": f"the {gone.noun}", "bare_old": gone.noun, "it": it, "its": its, "him": him}

    def _short(self, member: Member) -> str | None:
        draw, world = self.rng.random(), self.world
        if world.cast.focus == member.key and draw < _PRONOUN_CHANCE:
            return world.genders[member.key]
        draw = self.rng.random()
        if draw < _BY_PLACE_CHANCE:
            return self.by_place(member, world.members)
        if draw < _BY_PLACE_CHANCE + _CLASS_NAME_CHANCE:
            return self._by_class(member)
        two = len(world.members) == 2 and world.cast.focus not in (None, member.key)
        return "the other one" if two and draw < _BY_PLACE_CHANCE + _CLASS_NAME_CHANCE + _OTHER_ONE_CHANCE else None

    def by_place(self, member: Member, among: tuple[Member, ...]) -> str | None:
        """ "the one on the left", if that can mean only this one of them."""
        here = place_of(member.item.box)
        rest = [place_of(m.item.box) for m in among if m.key != member.key]
        if here in _SIDES:
            axis = _SIDES[here]
            if any(_cell(place)[axis] == _cell(here)[axis] for place in rest):
                return None
        if here in rest or not rest:
            return None
        return f"the {pick(data('places')['one'][here.value], self.rng)}"

    def _by_class(self, member: Member) -> str | None:
        name = class_of(member.label)
        words = data("nouns")["collective"].get(name)
        alone = sum(class_of(m.label) == name for m in self.world.members) == 1
        return f"the {pick(words, self.rng)}" if words and alone else None

    # -- places ------------------------------------------------------------------------------------------------------

    def at(self, spot: Place) -> dict[str, str]:
        """Slots of a place."""
        places = data("places")
        return {"where": pick(places["at"][spot.value], self.rng), "bare": pick(places["bare"][spot.value], self.rng)}

    def by(self, relation: Relation, anchors: list[Member]) -> dict[str, str]:
        """Slots of a relation to members; the one in focus may be "it"."""
        places, first = data("places"), anchors[0]
        in_focus = self.world.cast.focus == first.key
        if in_focus and relation is not Relation.BETWEEN and self.rng.random() < _OF_FOCUS_CHANCE:
            where = self.of_focus(relation, first)
        else:
            names = [self.reference(a, short=False)["the"] for a in anchors]
            where = pick(places["relation"][relation.value], self.rng).format(x=names[0], y=names[-1])
        return {"where": where, "bare": where}

    def of_focus(self, relation: Relation, member: Member) -> str:
        """ "on its left"."""
        _, its, him = _PRONOUNS[self.world.genders[member.key]]
        return str(pick(data("places")["of_focus"][relation.value], self.rng)).format(its=its, him=him)

    def setting(self, background: Background, other: Background) -> dict[str, str]:
        """Slots of a background, and of `other`, a wrong one."""
        places = data("places")
        return {
            "setting": pick(places["setting"][background.value], self.rng),
            "bare_setting": pick(places["bare_setting"][background.value], self.rng),
            "bare_other_setting": pick(places["bare_setting"][other.value], self.rng),
        }


def _cell(place: Place) -> tuple[int, int]:
    row, column = divmod(list(Place).index(place), 3)
    return column, row


def fitting_articles(text: str) -> str:
    """The text with "a" or "an" as the following word needs it."""
    return _ARTICLE.sub(lambda found: f"{found[1]}{'n' if _SPOKEN_VOWEL.match(found[2]) else ''} ", text)
