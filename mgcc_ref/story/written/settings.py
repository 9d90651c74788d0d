"""Sentences that say where a story takes place, or name a place where it does not, as no template has them.

They were written as the stories of this folder were.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mgcc_ref.story.telling.apart import keeps_apart
from mgcc_ref.story.wording.data import data_file
from mgcc_ref.story.world.scene import Background

_FILE = Path(__file__).with_name("settings.json")


class SettingKind(enum.StrEnum):
    """What a sentence does to the background."""

    OPENING = "opening"  # says which it is
    ARRIVAL = "arrival"  # changes it
    NOTHING = "nothing"  # names another, and leaves it


@dataclass(frozen=True)
class WrittenSetting:
    """A sentence and the background that it names; `author` is a number."""

    author: int
    kind: SettingKind
    background: Background
    text: str


@functools.cache
def written_settings() -> Mapping[tuple[SettingKind, Background], tuple[str, ...]]:
    """The texts of each kind and background that share no run of words with the validation texts."""
    every = [
        WrittenSetting(v["author"], SettingKind(v["kind"]), Background(v["background"]), v["text"])
        for v in data_file(_FILE)["settings"]
    ]
    return {
        (kind, background): tuple(
            s.text for s in every if (s.kind, s.background) == (kind, background) and keeps_apart(s.text)
        )
        for kind in SettingKind
        for background in Background
    }
