"""Dialogues: ten rounds of question and answer that describe one scene."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mgcc_ref.story.placing import (
    choose_relation,
    free_label,
    free_place,
    newcomer,
    put_at_place,
    put_by_relation,
    sample_side,
)
from mgcc_ref.story.wording.patterns import any_wording, every_wording_of
from mgcc_ref.story.wording.phrases import (
    PLACE_PHRASES,
    RELATION_PHRASES,
    SETTING_PHRASES,
    SIZE_WORDS,
    Bank,
    Split,
    indefinite,
    noun_for,
    patterns,
    pick,
    plural,
    sentence,
)
from mgcc_ref.story.world.facts import Cast, Member, ObjectFact, Source, Told
from mgcc_ref.story.world.layout_words import place_of
from mgcc_ref.story.world.scene import MAX_OBJECTS, Background, Scene, Size

ROUNDS = 10

_RELATION_CHANCE = 0.4
_PAIR_CHANCE = 0.12
_NUMBERS = ("none", "one", "two", "three", "four", "five")


class DialogueSetting(enum.StrEnum):
    """How many rounds are shown."""

    ROUNDS_1 = "1"
    ROUNDS_5 = "5"
    ROUNDS_10 = "10"


@dataclass(frozen=True)
class Round:
    question: str
    answer: str

    @property
    def text(self) -> str:
        return f"{self.question} {self.answer}"


@dataclass(frozen=True)
class Dialogue:
    """Ten rounds about `target`. Only all of them together tell the whole scene."""

    rounds: tuple[Round, ...]
    target: Scene
    facts: tuple[ObjectFact, ...]
    background_told: Told
    split: Split

    @property
    def parts(self) -> tuple[str, ...]:
        """All rounds, one part each."""
        return self.view(DialogueSetting.ROUNDS_10)

    def view(self, setting: DialogueSetting) -> tuple[str, ...]:
        """The first 1, 5 or 10 rounds, one part each, without the facts of later rounds."""
        return tuple(r.text for r in self.rounds[: int(setting.value)])

    def is_told(self, setting: DialogueSetting) -> bool:
        """Whether the shown rounds name every object, its position and the background."""
        told = [self.background_told, *(t for fact in self.facts for t in (fact.named, fact.placed))]
        return all(t.at <= int(setting.value) for t in told)


def dialogue_templates(kind: str, split: Split) -> tuple[str, ...]:
    """All wordings of the templates of `kind` (a name in the bank of dialogues) that `split` may use."""
    return every_wording_of(patterns(split, Bank.DIALOGUES)[kind])


def make_dialogue(seed: int | np.random.Generator, split: Split = Split.TRAIN) -> Dialogue:
    """A dialogue with the phrasings of `split`; the same seed and split give the same dialogue."""
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng([seed, list(Split).index(split), 10])
    return _Interview(rng, split).dialogue()


def _random_cast(rng: np.random.Generator) -> Cast:
    """One to five members, each at a place or in a relation to an earlier one."""
    told = Told(Source.TEXT, 1)
    cast = Cast(pick(tuple(Background), rng), told)
    goal = int(rng.integers(1, MAX_OBJECTS + 1))
    for _ in range(8 * goal):
        members = cast.members
        if len(members) >= goal:
            break
        size = pick((Size.SMALL, Size.MEDIUM, Size.MEDIUM, Size.LARGE), rng)
        anchors = [m for m in members if cast.can_refer(m)]
        pair = goal - len(members) >= 2 and rng.random() < _PAIR_CHANCE
        label = free_label(cast, rng)
        added: list[Member] = []
        for _ in range(2 if pair else 1):
            others = (*members, *added)
            fresh = newcomer(len(others), label, sample_side(size, rng), told)
            if anchors and not pair and rng.random() < _RELATION_CHANCE:
                placed = put_by_relation(fresh, *choose_relation(anchors, rng), others, rng)
            else:
                placed = put_at_place(fresh, free_place([m.item for m in others], rng), others, rng)
            if placed is None:
                break
            added.append(placed)
        if len(added) == (2 if pair else 1):
            cast = replace(cast, members=(*members, *added))
    return cast


class _Interview:
    """Asks about a cast, one topic a round, and records the round of each fact."""

    def __init__(self, rng: np.random.Generator, split: Split) -> None:
        self.rng, self.split, self.bank = rng, split, patterns(split, Bank.DIALOGUES)
        self.cast = _random_cast(rng)
        self.rounds: list[Round] = []
        self.named: dict[int, int] = {}
        self.placed: dict[int, int] = {}
        self.background_at = 0
        self.focus: str | None = None
        by_label: dict[str, list[Member]] = {}
        for member in self.cast.members:
            by_label.setdefault(member.label, []).append(member)
        self.groups = [by_label[label] for label in by_label]

    def dialogue(self) -> Dialogue:
        """The whole dialogue. Names come before places; rounds that the facts leave free are small talk."""
        order = [self.groups[i] for i in self.rng.permutation(len(self.groups))]
        cut = int(self.rng.integers(1, len(order) + 1)) if len(order) > 1 and self.rng.random() < 0.4 else len(order)
        first, later = order[:cut], order[cut:]
        opening: list[Callable[[], None]] = [lambda: self._tell_things(first, more=False)]
        rest: list[Callable[[], None]] = [functools.partial(self._tell_place, group) for group in first]
        if self.rng.random() < 0.5:
            opening.insert(int(self.rng.integers(2)), self._tell_setting)
        else:
            rest.append(self._tell_setting)
        rest = [rest[i] for i in self.rng.permutation(len(rest))]
        if later:
            more = [functools.partial(self._tell_place, group) for group in later]
            rest = [*rest, lambda: self._tell_things(later, more=True), *more]
        topics = [*opening, *rest]
        for topic in self._with_small_talk(topics, len(opening)):
            topic()
        members = tuple(
            replace(m, named=Told(Source.TEXT, self.named[m.key]), placed=Told(Source.TEXT, self.placed[m.key]))
            for m in self.cast.members
        )
        cast = replace(self.cast, members=members)
        scene = Scene(cast.background, tuple(m.item for m in members))
        told = Told(Source.TEXT, self.background_at)
        return Dialogue(tuple(self.rounds), scene, cast.object_facts(), told, self.split)

    def _with_small_talk(self, topics: list[Callable[[], None]], first: int) -> list[Callable[[], None]]:
        """`topics` filled up to ten; small talk comes only after the first `first` of them."""
        talk = (self._ask_size, self._ask_absent, self._ask_present, self._ask_count, self._aside, self._ask_size)
        filled = list(topics)
        while len(filled) < ROUNDS:
            spot = int(self.rng.integers(first, len(filled) + 1))
            filled.insert(spot, pick(talk, self.rng))
        return filled

    # -- words ---------------------------------------------------------------------------------------------------

    def _say(self, ask: str, tell: str, focus: str | None, **slots: str) -> None:
        question = any_wording(self.bank[ask], self.rng).format(**slots)
        answer = any_wording(self.bank[tell], self.rng).format(**slots)
        self.rounds.append(Round(sentence(question), sentence(answer)))
        self.focus = focus

    def _the(self, label: str) -> str:
        if self.focus == label and self.rng.random() < 0.4:
            return "it"
        return f"the {noun_for(label, self.rng)}"

    def _where(self, member: Member) -> str:
        if member.place is not None:
            return pick(PLACE_PHRASES[member.place], self.rng)
        assert member.relation is not None
        names = [f"the {noun_for(self.cast.member(key).label, self.rng)}" for key in member.anchors]
        return pick(RELATION_PHRASES[member.relation], self.rng).format(x=names[0], y=names[-1])

    def _thing(self, group: list[Member]) -> str:
        """A group in words. The size of a medium one is mostly left out."""
        label, size = group[0].label, group[0].item.size
        noun = noun_for(label, self.rng)
        noun = f"two {plural(noun)}" if len(group) == 2 else noun
        if size is not Size.MEDIUM or self.rng.random() < 0.15:
            word = pick(SIZE_WORDS[size], self.rng)
            noun = noun.replace("two ", f"two {word} ", 1) if len(group) == 2 else f"{word} {noun}"
        return noun if len(group) == 2 else indefinite(noun)

    # -- topics --------------------------------------------------------------------------------------------------

    def _tell_things(self, groups: list[list[Member]], *, more: bool) -> None:
        number = len(self.rounds) + 1
        words = [self._thing(group) for group in groups]
        things = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
        self.named.update({m.key: number for group in groups for m in group})
        focus = groups[0][0].label if len(groups) == 1 and len(groups[0]) == 1 else None
        self._say("ASK_MORE" if more else "ASK_THINGS", "TELL_MORE" if more else "TELL_THINGS", focus, things=things)

    def _tell_setting(self) -> None:
        self.background_at = len(self.rounds) + 1
        self._say("ASK_SETTING", "TELL_SETTING", None, setting=pick(SETTING_PHRASES[self.cast.background], self.rng))

    def _tell_place(self, group: list[Member]) -> None:
        self.placed.update({m.key: len(self.rounds) + 1 for m in group})
        label = group[0].label
        if len(group) == 2:
            p1, p2 = (self._where(m) for m in group)
            noun = plural(noun_for(label, self.rng))
            self._say("ASK_WHERE_TWO", "TELL_WHERE_TWO", None, plural=noun, p1=p1, p2=p2)
            return
        member, the = group[0], self._the(label)
        if self.rng.random() < 0.75:
            self._say("ASK_WHERE", "TELL_WHERE", label, the=the, where=self._where(member))
            return
        truth = self._where(member)
        right = self.rng.random() < 0.5
        wrong = [p for p in PLACE_PHRASES if p is not place_of(member.item.box)]
        guess = truth if right else pick(PLACE_PHRASES[pick(wrong, self.rng)], self.rng)
        question = any_wording(self.bank["GUESS_WHERE"], self.rng).format(the=the, where=guess)
        answer = any_wording(self.bank["CONFIRM" if right else "CORRECT_WHERE"], self.rng)
        self.rounds.append(Round(sentence(question), sentence(answer.format(where=truth))))
        self.focus = label

    def _ask_size(self) -> None:
        """Ask the size of one named thing; if there is none, ask how many things there are."""
        known = [g[0] for g in self.groups if len(g) == 1 and g[0].key in self.named]
        if not known:
            self._ask_count()
            return
        member = pick(known, self.rng)
        size = pick(SIZE_WORDS[member.item.size], self.rng)
        self._say("ASK_SIZE", "TELL_SIZE", member.label, the=self._the(member.label), size=size)

    def _ask_absent(self) -> None:
        absent = indefinite(noun_for(free_label(self.cast, self.rng), self.rng))
        self._say("ASK_ABSENT", "DENY", None, absent=absent)

    def _ask_present(self) -> None:
        group = pick([g for g in self.groups if g[0].key in self.named] or self.groups, self.rng)
        self._say("ASK_PRESENT", "AFFIRM", None, present=indefinite(noun_for(group[0].label, self.rng)))

    def _ask_count(self) -> None:
        self._say("ASK_COUNT", "TELL_COUNT", None, number=_NUMBERS[len(self.cast.members)])

    def _aside(self) -> None:
        self._say("ASK_ASIDE", "TELL_ASIDE", None)
