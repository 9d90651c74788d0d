"""StoryBench's items: held-back stories and dialogues, and what the shown part of each tells of its scene.

Items of the validation split may choose weights; those of the test split, with phrasings and seeds of their own, judge
the chosen ones.

A short setting does not tell the whole scene, so each item states what may be expected of its picture:

- An **object** is expected if the shown parts name it: a shown text has one of its nouns, or a shown image shows what
  the text calls "my friend". A pronoun names nothing ("It moves away" alone).
- Its **position** counts if the shown parts give it: a shown text has the words of its place or relation (and the
  relation's anchors are expected too), or a shown image is the one that placed it. "They swap places" alone gives no
  position.
- The **background** counts if a shown part tells it.

Objects of the true scene that no shown part tells are neither expected nor wrong in the picture; all others are wrong.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mgcc_ref.story.dialogues import Dialogue, DialogueSetting, make_dialogue
from mgcc_ref.story.free_english import FreeItem, FreeSetting
from mgcc_ref.story.stories import Part, Setting, Story, make_story
from mgcc_ref.story.wording.mentions import any_of, mentions_in
from mgcc_ref.story.wording.phrases import PLACE_PHRASES, RELATION_PHRASES, SETTING_PHRASES, Split
from mgcc_ref.story.world.facts import ObjectFact, Source, Told
from mgcc_ref.story.world.layout_words import Place, PlaceFact
from mgcc_ref.story.world.scene import Background, Scene, render

#: No seed of training's held-back sets is among these.
_BENCH_KEYS = {Split.VALIDATION: 20_811_304, Split.TEST: 47_290_173}


class Suite(enum.StrEnum):
    STORIES = "stories"
    DIALOGUES = "dialogues"
    FREE = "free"


BenchSetting = Setting | DialogueSetting | FreeSetting
SETTINGS: dict[Suite, tuple[BenchSetting, ...]] = {
    Suite.STORIES: tuple(Setting),
    Suite.DIALOGUES: tuple(DialogueSetting),
    Suite.FREE: tuple(FreeSetting),
}


@dataclass(frozen=True)
class ExpectedObject:
    """An object that the shown parts name; `fact` is its position, None if they do not give one."""

    index: int  # in the target's objects
    label: str
    fact: ObjectFact | None


@dataclass(frozen=True)
class BenchItem:
    """One picture to draw, and the objects and background to expect in it."""

    suite: Suite
    setting: BenchSetting
    number: int
    parts: tuple[Part, ...]
    target: Scene
    expected: tuple[ExpectedObject, ...]
    background: Background | None  # None: the shown parts do not tell it
    story_labels: frozenset[str]  # of all objects in any scene of the story or dialogue

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(part for part in self.parts if isinstance(part, str))

    def inputs(self) -> list[str | Image.Image]:
        """The parts as a request's texts and pictures."""
        return [part if isinstance(part, str) else Image.fromarray(render(part)) for part in self.parts]

    @property
    def title(self) -> str:
        """The item's name for readers."""
        return f"{self.suite.value} {self.setting.value}, item {self.number}"

    @property
    def tells_something(self) -> bool:
        """Whether any object or the background is expected."""
        return bool(self.expected) or self.background is not None


def setting_of(suite: Suite, value: str) -> BenchSetting:
    """The suite's setting called `value`; ValueError with the list of settings otherwise."""
    found = next((setting for setting in SETTINGS[suite] if setting.value == value), None)
    if found is None:
        names = ", ".join(setting.value for setting in SETTINGS[suite])
        raise ValueError(f"setting {value!r} is none of suite {suite.value}, which has {names}; choose one of them")
    return found


#: An item from templates, or one of `free_items`.
AnyItem = BenchItem | FreeItem


def bench_item(
    suite: Suite, setting: Setting | DialogueSetting, number: int, seed: int = 0, split: Split = Split.VALIDATION
) -> BenchItem:
    """Item `number`: a function of (suite, seed, number, split); its story is the same in all settings of the suite."""
    rng = np.random.default_rng([_BENCH_KEYS[split], seed, number, list(Suite).index(suite)])
    if isinstance(setting, Setting):
        return _story_item(make_story(rng, split), setting, number)
    return _dialogue_item(make_dialogue(rng, split), setting, number)


def bench_items(
    suite: Suite, setting: Setting | DialogueSetting, count: int, seed: int = 0, split: Split = Split.VALIDATION
) -> Iterator[BenchItem]:
    """Items 0 to `count` - 1, made one at a time."""
    return (bench_item(suite, setting, number, seed, split) for number in range(count))


def _story_item(story: Story, setting: Setting, number: int) -> BenchItem:
    last = len(story.turns)

    def shown(told: Told) -> bool:
        if setting is Setting.CAPTION_1:
            return told.source is Source.TEXT and told.at == last
        if setting is Setting.CAPTIONS_5:
            return told.source is Source.TEXT
        return told.source is Source.TEXT or told.at < last

    parts, background_told = story.view(setting), story.turns[-1].background_told
    return BenchItem(
        suite=Suite.STORIES,
        setting=setting,
        number=number,
        parts=parts,
        target=story.target,
        expected=_expected(story.facts, shown, parts),
        background=story.target.background if shown(background_told) else None,
        story_labels=frozenset(item.label for turn in story.turns for item in turn.scene.objects),
    )


def _dialogue_item(dialogue: Dialogue, setting: DialogueSetting, number: int) -> BenchItem:
    def shown(told: Told) -> bool:
        return told.at <= int(setting.value)

    parts = dialogue.view(setting)
    return BenchItem(
        suite=Suite.DIALOGUES,
        setting=setting,
        number=number,
        parts=parts,
        target=dialogue.target,
        expected=_expected(dialogue.facts, shown, parts),
        background=dialogue.target.background if shown(dialogue.background_told) else None,
        story_labels=frozenset(item.label for item in dialogue.target.objects),
    )


def _expected(
    facts: tuple[ObjectFact, ...], shown: Callable[[Told], bool], parts: tuple[Part, ...]
) -> tuple[ExpectedObject, ...]:
    text = " ".join(part for part in parts if isinstance(part, str))
    text_only = not any(isinstance(part, Scene) for part in parts)
    names, places = set(labels_named_in(text)), places_named_in(text)
    named = {f.index for f in facts if shown(f.named) or (f.named.source is Source.TEXT and f.label in names)}

    def is_placed(fact: ObjectFact) -> bool:
        if not shown(fact.placed) or not named.issuperset(fact.anchors):
            return False
        return not (text_only and isinstance(fact.fact, PlaceFact)) or fact.fact.place in places

    return tuple(ExpectedObject(f.index, f.label, f if is_placed(f) else None) for f in facts if f.index in named)


def labels_named_in(text: str) -> list[str]:
    """Label of each object's noun in the text, singular or plural, in order, repeats included."""
    return [mention.label for mention in mentions_in(text)]


_PLACE_OF = {phrase: place.value for place, phrases in PLACE_PHRASES.items() for phrase in phrases}
#: Phrases that begin like a place: "on the left side of the fox", "in the middle of the night".
_NO_PLACE = [
    *(template.split(" {x}")[0] for templates in RELATION_PHRASES.values() for template in templates),
    *(phrase for phrases in SETTING_PHRASES.values() for phrase in phrases),
]
_PLACE_PATTERN = any_of(_PLACE_OF | dict.fromkeys(_NO_PLACE, ""))


def places_named_in(text: str) -> set[Place]:
    """The places whose words are in the text."""
    found = (_PLACE_OF.get(match.group().lower()) for match in _PLACE_PATTERN.finditer(text))
    return {Place(value) for value in found if value is not None}
