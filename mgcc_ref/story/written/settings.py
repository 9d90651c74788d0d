"""Sentences that say where a story takes place, or name a place where it does not, as no template has them.

They were written as the stories of this folder were.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
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


@functools.cache
def written_settings() -> Mapping[tuple[SettingKind, Background], tuple[str, ...]]:
    """The texts of each kind and background that share no run of words with the validation texts."""
    found: dict[tuple[SettingKind, Background], list[str]] = {(k, b): [] for k in SettingKind for b in Background}
    for value in data_file(_FILE)["settings"]:
        if keeps_apart(value["text"]):
            found[SettingKind(value["kind"]), Background(value["background"])].append(value["text"])
    return {key: tuple(texts) for key, texts in found.items()}
