"""5,074 requests in free English, half of which ask for something that the story model cannot draw.

The runtime's notes were developed on half `dev`, learned from `dev` and `train`, and are judged by half `test`. Half
`seen` judged them before, too often to judge once more.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from pathlib import Path

from mgcc_ref.story.wording.data import data_file

_FILE = Path(__file__).with_name("note_requests.json")


class Half(enum.StrEnum):
    TRAIN = "train"
    DEV = "dev"
    SEEN = "seen"
    TEST = "test"


@dataclass(frozen=True)
class NoteRequest:
    """A text and the notes that it needs: each a code, and the thing if it is an unknown one."""

    text: str
    notes: frozenset[tuple[str, str]]
    author: int = -1  # who wrote it, by number; -1: nobody in the file


@functools.cache
def note_requests(half: Half) -> tuple[NoteRequest, ...]:
    """The requests of one half, in the file's order."""
    every = data_file(_FILE)["requests"]
    return tuple(
        NoteRequest(
            value["text"], frozenset(_note(note["code"], note["thing"]) for note in value["notes"]), value["author"]
        )
        for value in every
        if value["half"] == half.value
    )


def _note(code: str, thing: str) -> tuple[str, str]:
    """Unknown things need a note each; of other codes, a request has one note."""
    return code, thing if code == "unknown-thing" else ""
