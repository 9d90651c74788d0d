"""Turns of a dialogue that ask for a picture, and turns that do not: training data for `DrawDecision`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgcc_ref.story.dialogues import make_dialogue
from mgcc_ref.story.wording.data import data_file
from mgcc_ref.story.wording.patterns import any_wording
from mgcc_ref.story.wording.phrases import NOUNS, Bank, Split, indefinite, patterns, pick

MAX_ROUNDS_BEFORE = 4
_TRICKY_CHANCE = 0.4  # that a turn of templates which asks for no picture mentions pictures
_NEXT_ROUND_CHANCE = 0.35
_WRITTEN = Path(__file__).with_name("draw_requests.json")


@dataclass(frozen=True)
class DrawTurn:
    """A dialogue's texts; `draws` says whether the last one asks for a picture."""

    parts: tuple[str, ...]
    draws: bool


@functools.cache
def written_lines() -> tuple[DrawTurn, ...]:
    """Last lines that language models wrote without sight of the templates, each as a turn without rounds before it."""
    return tuple(DrawTurn((value["text"],), value["draws"]) for value in data_file(_WRITTEN)["requests"])


def after_rounds(line: DrawTurn, rng: np.random.Generator) -> DrawTurn:
    """A line after up to four rounds of a dialogue."""
    told = make_dialogue(rng, Split.TRAIN).parts[: int(rng.integers(MAX_ROUNDS_BEFORE + 1))]
    return DrawTurn((*told, *line.parts), line.draws)


def make_draw_turn(rng: np.random.Generator, split: Split) -> DrawTurn:
    """Up to four rounds, then a turn that asks for a picture or, as often, one that does not."""
    dialogue = make_dialogue(rng, split)
    before = int(rng.integers(MAX_ROUNDS_BEFORE + 1))
    told, draws = dialogue.parts[:before], bool(rng.random() < 0.5)
    return DrawTurn((*told, _line(dialogue.parts[before], split, rng, draws=draws)), draws)


def _line(following: str, split: Split, rng: np.random.Generator, *, draws: bool) -> str:
    bank = patterns(split, Bank.DRAW)
    if draws:
        return _filled(bank["DRAW"], rng)
    if rng.random() < _NEXT_ROUND_CHANCE:
        return following
    return _filled(bank["TRICKY" if rng.random() < _TRICKY_CHANCE else "TALK"], rng)


def _filled(lines: tuple[str, ...], rng: np.random.Generator) -> str:
    template = any_wording(lines, rng)
    noun = pick(NOUNS[pick(tuple(NOUNS), rng)], rng)
    return template.replace("{a thing}", indefinite(noun))
