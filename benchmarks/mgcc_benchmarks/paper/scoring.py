"""Scores the drawn pictures: the pairs, the value of each, and the means with their intervals."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mgcc_benchmarks.bootstrap import NOTHING, UNCOUNTED, Score, Tally, bootstrap
from mgcc_benchmarks.paper.items import Item
from mgcc_benchmarks.paper.likeness import Likeness
from mgcc_benchmarks.paper.pictures import open_picture
from mgcc_benchmarks.paper.protocol import LpipsPairs, Protocol, Unpaired
from mgcc_runtime.errors import ImageError, InputError
from mgcc_runtime.images.conversion import load_image
from mgcc_runtime.reading import parse_json, read_text

log = logging.getLogger("mgcc.benchmarks")

CLIP, SECOND_CLIP, LPIPS = "clip_similarity", "second_clip_similarity", "lpips"
SCORES = (CLIP, SECOND_CLIP, LPIPS)
SCORE_FILES = "scores-*.jsonl"


@dataclass(frozen=True)
class Pair:
    """A drawn picture and the true one."""

    item: Item
    drawn: Path
    truth: Path


def pairs_of(score: str, items: Sequence[Item], pictures: Path, protocol: Protocol) -> list[Pair | None]:
    """The pair that the score compares for each item; None where a picture is missing, or the pair came before.

    As in GILL's scores, items that were not drawn count: another item's picture may have their name.
    """
    by_name = score == LPIPS and protocol.lpips_pairs is LpipsPairs.FILE_NAME
    found: list[Pair | None] = []
    seen: set[str] = set()
    for item in items:
        drawn = pictures / f"{item.result}.png"
        pair = Pair(item, drawn, item.truth) if item.truth is not None and drawn.is_file() else None
        if pair and by_name and (pair.truth.name != drawn.name or item.result in seen):
            pair = None
        seen |= {item.result} if pair else set()
        found.append(pair)
    return found


class ScoreCache:
    """Values in a folder, keyed by a digest of all that they depend on, so that no stale one is found.

    Each shard appends to a file of its own and reads all.
    """

    def __init__(self, folder: Path, shard: str) -> None:
        self._path = folder / SCORE_FILES.replace("*", shard)
        self._values = {key: value for file in sorted(folder.glob(SCORE_FILES)) for key, value in _lines(file)}
        with contextlib.suppress(FileNotFoundError), self._path.open("rb+") as file:  # a kill may leave half a line
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)

    def value(self, key: str, compute: Callable[[], float]) -> float:
        if key not in self._values:
            self._values[key] = compute()
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "value": self._values[key]}) + "\n")
        return self._values[key]


def _lines(path: Path) -> Iterator[tuple[str, float]]:
    for line in read_text(path, "scores").splitlines():
        try:
            told = parse_json(line, "a line")
            yield str(told["key"]), float(told["value"])
        except (InputError, KeyError, TypeError, ValueError):  # half a line: its pair is scored again
            continue


@dataclass(frozen=True)
class Scorer:
    """Likenesses by their names, at work on a folder of drawn pictures."""

    likenesses: dict[str, Likeness]
    protocol: Protocol
    pictures: Path
    cache: ScoreCache

    def tallies(
        self, items: Sequence[Item], progress: Callable[[int, int], None] = lambda *_: None
    ) -> tuple[dict[str, list[Tally]], dict[str, str]]:
        """For each score one tally per item; and by item, why it has none though both pictures exist."""
        pairs = {name: pairs_of(name, items, self.pictures, self.protocol) for name in self.likenesses}
        found: dict[str, list[Tally]] = {name: [] for name in self.likenesses}
        broken: dict[str, str] = {}
        for number, item in enumerate(items):
            for name, likeness in self.likenesses.items():
                tally, pair = NOTHING, pairs[name][number]
                if pair is not None:
                    try:
                        tally = Tally(self._score(likeness, pair), 1.0)
                    except ImageError as error:
                        log.warning("item %s is not scored: %s", item.name, error)
                        broken[item.name] = str(error)
                found[name].append(tally)
            progress(number + 1, len(items))
        return found, broken

    def _score(self, likeness: Likeness, pair: Pair) -> float:
        rules = f"{self.protocol.fit.value} {self.protocol.turn.value}"
        digest = hashlib.sha256(f"{likeness.identity}\n{rules}\n".encode())
        for path in (pair.drawn, pair.truth):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return self.cache.value(digest.hexdigest(), lambda: likeness(*self._images(pair)))

    def _images(self, pair: Pair) -> tuple[Image.Image, Image.Image]:
        return load_image(pair.drawn), open_picture(pair.truth, self.protocol)


@dataclass(frozen=True)
class Scored:
    """A score, the number of pairs that it covers, and the number of items."""

    score: Score
    pairs: int
    items: int

    def to_json(self) -> dict[str, Any]:
        return {**self.score.to_json(), "pairs": self.pairs, "items": self.items}


def summarise(tallies: dict[str, list[Tally]], protocol: Protocol, seed: int) -> dict[str, Scored]:
    """The mean of each score and its 95 % interval, by the protocol's rule on missing pairs."""
    found = {}
    for name, values in tallies.items():
        pairs = int(sum(tally.counted for tally in values))
        whole = pairs == len(values) or protocol.unpaired is Unpaired.LEFT_OUT
        found[name] = Scored(bootstrap(values, seed=seed) if whole else UNCOUNTED, pairs, len(values))
    return found
