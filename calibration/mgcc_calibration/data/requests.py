"""The requests that calibration data is captured from: StoryWorld stories by seed, or a folder of the user's own."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mgcc_calibration.errors import DataError
from mgcc_runtime.pipeline import Pipeline
from mgcc_runtime.prompt import Part
from mgcc_runtime.reading import read_text
from mgcc_runtime.story import read_story

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One request; `seed` sets its noise and its text."""

    parts: tuple[Part, ...]
    seed: int


@dataclass(frozen=True)
class RequestSource:
    """Requests and where they came from, as the data's manifest says it."""

    description: str
    requests: tuple[Request, ...]


def storyworld_requests(count: int, seed: int) -> RequestSource:
    """`count` requests of the training split; the i-th depends on (seed, i) alone. DataError if `count` < 1.

    If none of them has an image, the next one that does takes the place of the last.
    Never the held-back split: what is scored later must not have set the ranges.
    """
    if count < 1:
        raise DataError(f"{count} calibration requests were asked for, expected at least 1; raise the number")
    try:
        from mgcc_ref.train.requests import training_request
    except ImportError as error:
        raise DataError(
            f"StoryWorld cannot be imported ({error}), it draws the calibration stories; "
            "install it with `pip install 'mgcc-edge[train]'`, or give a folder of your own stories"
        ) from None
    parts = [tuple(training_request(seed, i).parts) for i in range(count)]
    if not any(_shows_something(p) for p in parts):  # the vision tower needs data as well
        later = (tuple(training_request(seed, i).parts) for i in itertools.count(count))
        parts[-1] = next(p for p in later if _shows_something(p))
    return RequestSource(
        f"StoryWorld, training split, seed {seed}", tuple(Request(p, seed + i) for i, p in enumerate(parts))
    )


def _shows_something(parts: tuple[Part, ...]) -> bool:
    return any(not isinstance(part, str) for part in parts)


def folder_requests(folder: Path, seed: int) -> RequestSource:
    """Every NAME.json (as `mgcc generate --story` reads it) and NAME.txt (one text) of a folder, by name.

    DataError if there are none; InputError if one has another form.
    """
    files = sorted(p for p in folder.glob("*") if p.suffix in (".json", ".txt")) if folder.is_dir() else []
    if not files:
        raise DataError(
            f"{folder} holds no story, expected files NAME.json as `mgcc generate --story` reads them, or NAME.txt; "
            "add some, or leave the folder out for StoryWorld"
        )
    requests = [Request(tuple(_parts(path)), seed + i) for i, path in enumerate(files)]
    return RequestSource(f"folder {folder.name}, {len(files)} stories, seed {seed}", tuple(requests))


def _parts(path: Path) -> Sequence[Part]:
    if path.suffix == ".json":
        return read_story(path)
    text = read_text(path, "story").strip()
    if not text:
        raise DataError(f"{path} is empty, expected a text; fill it or remove it")
    return [text]


def fitting_parts(pipeline: Pipeline, parts: Sequence[Part], words: int) -> Sequence[Part]:
    """The last parts that fit into the context: a profile with a short one is calibrated on ends of stories.

    Where not even the last part fits it is returned all the same; the pipeline refuses it and says by how much.
    """
    dimensions = pipeline.bundle.manifest.dimensions
    room = dimensions.context - max(dimensions.image_tokens, words)
    for first in range(len(parts)):
        if pipeline.prompts.build(parts[first:]).length <= room:
            if first:
                _LOG.info("left out the first %d of %d parts of a story: the context is too short", first, len(parts))
            return parts[first:]
    return parts[-1:]
