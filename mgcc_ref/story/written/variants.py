"""Variants of written stories that mean the same: mirrored, with other things in the roles, and with misspelt words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mgcc_ref.story.free_english import WantedPlace
from mgcc_ref.story.telling.rewording import contracted, with_slips
from mgcc_ref.story.telling.teller import fitting_articles
from mgcc_ref.story.telling.words import every_mention_in, nouns_of
from mgcc_ref.story.wording.phrases import pick, plural
from mgcc_ref.story.written.stories import ShownThing, WrittenPart, WrittenScene, WrittenStory

MIRROR_CHANCE, RECAST_CHANCE, SLIP_CHANCE, LOWER_CASE_CHANCE = 0.5, 0.6, 0.12, 0.08
#: Things that can play each other's parts in most sentences.
ROLES: tuple[frozenset[str], ...] = (
    frozenset({"cat", "dog", "fox", "lion", "panda", "frog", "turtle", "penguin"}),
    frozenset({"tree", "palm tree", "cactus", "sunflower"}),
    frozenset({"car", "bus", "bicycle"}),
)
_SIDE = {"left": "right", "right": "left"}
_SIDED = re.compile(r"\b(left|right)(?=\b|most|ward|hand)", re.IGNORECASE)
#: A side, and not "it left", "all right", "right above" or "what is left".
_BEFORE = re.compile(
    r"\b(?:the|to|far|top|bottom|upper|lower|middle|its|his|her|my|your|their|our|on|at|from|of|slightly|extreme)[ -]$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"(?:most|wards?|[ -]?hand|[ -](?:of|side|edge|corner|half|third|part|end|border))\b", re.IGNORECASE
)
_REMAINS = re.compile(r"(?:\bis|\bare|\bwas|\bwere|\bbe|'s|\bnothing) $", re.IGNORECASE)
_ONE_WAY = re.compile(r"\b(?:east|west|clockwise|anticlockwise|port|starboard|l|r)\b", re.IGNORECASE)


def any_variant(story: WrittenStory, rng: np.random.Generator) -> WrittenStory:
    """The story in another form of the same meaning; the same state of `rng` gives the same."""
    if rng.random() < RECAST_CHANCE:
        story = recast(story, rng)
    if rng.random() < MIRROR_CHANCE:
        story = mirrored(story) or story
    lower, slips = rng.random() < LOWER_CASE_CHANCE, rng.random() < SLIP_CHANCE

    def written(text: str) -> str:
        text = contracted(text, rng)
        text = with_slips(text, rng) if slips else text
        return text.lower() if lower else text

    return _changed(story, written, lambda wanted: wanted, lambda thing: thing)


def mirrored(story: WrittenStory) -> WrittenStory | None:
    """The story with left and right exchanged; None if a "left" or "right" in it may be no side."""
    for text in story.texts:
        if _ONE_WAY.search(text) or not all(_is_side(text, found) for found in _SIDED.finditer(text)):
            return None
    return _changed(
        story,
        lambda text: _SIDED.sub(_other_side, text),
        lambda wanted: replace(wanted, column=_SIDE.get(wanted.column, wanted.column)),
        lambda thing: replace(thing, x=1 - thing.x),
    )


def _is_side(text: str, found: re.Match[str]) -> bool:
    before, after = text[: found.start()], text[found.end() :]
    return bool(_BEFORE.search(before)) or bool(_AFTER.match(after) and not _REMAINS.search(before))


def _other_side(found: re.Match[str]) -> str:
    other = _SIDE[found[0].lower()]
    if found[0].isupper():
        return other.upper()
    return other.capitalize() if found[0][0].isupper() else other


def recast(story: WrittenStory, rng: np.random.Generator) -> WrittenStory:
    """The story with other things in some roles. A thing that no known noun names keeps its own."""
    known = {mention.label for text in story.texts for mention in every_mention_in(text)} | story.shown_labels
    taken = known | story.wanted_labels
    other: dict[str, str] = {}
    for role in ROLES:
        free = sorted(role - taken)
        other |= {label: free[i] for label, i in zip(sorted(role & known), rng.permutation(len(free)), strict=False)}
    nouns = {label: pick(nouns_of(new), rng) for label, new in other.items()}

    def written(text: str) -> str:
        pieces, end = [], 0
        for mention in every_mention_in(text):
            if mention.label not in other:
                continue
            said = text[mention.start : mention.end]
            noun = nouns[mention.label] if said.lower() in nouns_of(mention.label) else plural(nouns[mention.label])
            pieces += [text[end : mention.start], noun.capitalize() if said[0].isupper() else noun]
            end = mention.end
        return fitting_articles("".join([*pieces, text[end:]])) if pieces else text

    return _changed(
        story,
        written,
        lambda wanted: replace(wanted, label=other.get(wanted.label, wanted.label)),
        lambda thing: replace(thing, label=other.get(thing.label, thing.label)),
    )


def _changed(
    story: WrittenStory,
    text: Callable[[str], str],
    wanted: Callable[[WantedPlace], WantedPlace],
    shown: Callable[[ShownThing], ShownThing],
) -> WrittenStory:
    """The story with every text, wanted place and shown thing changed."""

    def change(part: WrittenPart) -> WrittenPart:
        if isinstance(part, WrittenScene):
            return replace(part, things=tuple(map(shown, part.things)))
        return replace(
            part, text=text(part.text), wanted=None if part.wanted is None else tuple(map(wanted, part.wanted))
        )

    return replace(story, parts=tuple(map(change, story.parts)))
