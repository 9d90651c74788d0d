"""Stories, captions and dialogues that no template made, with what the picture after each text shows.

The grounder and `align` learn from them beside the made ones: no grammar has their variety. They were written by
language models with instructions of their own, without sight of the project's phrasings or of `free_english.json`. A
place is a third of the picture's width and of its height, or is left open.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgcc_ref.story.free_english import WantedPlace
from mgcc_ref.story.wording.data import data_file
from mgcc_ref.story.world.scene import Background

_FILE = Path(__file__).with_name("stories.json")


@dataclass(frozen=True)
class WrittenText:
    """A text, and what the picture after it shows; `wanted` is None where nothing can be drawn yet.

    `background` is None while nothing has told it.
    """

    text: str
    wanted: tuple[WantedPlace, ...] | None
    background: Background | None = None


@dataclass(frozen=True)
class ShownThing:
    """A thing in a shown picture, with its centre as shares of the picture."""

    label: str
    x: float
    y: float


@dataclass(frozen=True)
class WrittenScene:
    """A picture that is shown at a point of the story."""

    background: Background
    things: tuple[ShownThing, ...]


WrittenPart = WrittenText | WrittenScene


@dataclass(frozen=True)
class WrittenStory:
    """The parts of one story, of which the last is a text; `author` is a number."""

    author: int
    parts: tuple[WrittenPart, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(part.text for part in self.parts if isinstance(part, WrittenText))

    @property
    def shown_labels(self) -> frozenset[str]:
        """Labels of the things in pictures."""
        return frozenset(t.label for part in self.parts if isinstance(part, WrittenScene) for t in part.things)

    @property
    def wanted_labels(self) -> frozenset[str]:
        """Labels of the things that some text's picture shows."""
        texts = (part for part in self.parts if isinstance(part, WrittenText))
        return frozenset(w.label for part in texts for w in part.wanted or ())


@functools.cache
def written_stories() -> tuple[WrittenStory, ...]:
    """All stories, in the file's order."""
    return tuple(_story(value) for value in data_file(_FILE)["items"])


def _story(value: dict[str, Any]) -> WrittenStory:
    return WrittenStory(int(value["author"]), tuple(_part(part) for part in value["parts"]))


def _part(value: dict[str, Any]) -> WrittenPart:
    if "scene" in value:
        scene = value["scene"]
        return WrittenScene(Background(scene["background"]), tuple(ShownThing(*thing) for thing in scene["objects"]))
    state = value["state"]
    if state is None:
        return WrittenText(value["text"], None)
    wanted = tuple(WantedPlace(*thing) for thing in state["objects"])
    return WrittenText(value["text"], wanted, state["background"] and Background(state["background"]))
