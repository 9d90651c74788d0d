"""StoryBench: draws items, scores each picture, and adds the scores up."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mgcc_benchmarks.bootstrap import NOTHING, Tally, bootstrap, difference
from mgcc_benchmarks.storybench.crispness import score_crispness
from mgcc_benchmarks.storybench.painters import Drawn, Painter
from mgcc_benchmarks.storybench.reader import read_picture, to_picture
from mgcc_benchmarks.storybench.scores import SCORES, TEXT_SCORES, score_free, score_scene, score_text
from mgcc_ref.story.bench import AnyItem, BenchItem, BenchSetting, Suite, bench_item
from mgcc_ref.story.free_english import FreeItem, FreeSetting, free_items
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.story.world.scene import render
from mgcc_runtime.errors import InputError
from mgcc_runtime.files import write_atomically
from mgcc_runtime.reading import Numbers, parse_json, read_text

log = logging.getLogger("mgcc.benchmarks")


class Likeness(Protocol):
    """How alike two pictures are to an evaluator."""

    def __call__(self, drawn: Image.Image, truth: Image.Image) -> float: ...


@dataclass(frozen=True)
class Plan:
    """Which items are drawn, and how."""

    suite: Suite
    setting: BenchSetting
    items: int
    seed: int
    words: int
    split: Split = Split.VALIDATION

    def item(self, number: int) -> AnyItem:
        """Item `number`. Free items come from a file, in its order, whatever the seed."""
        if isinstance(self.setting, FreeSetting):
            return free_items(self.setting)[number]
        return bench_item(self.suite, self.setting, number, self.seed, self.split)

    def identity(self, painter: Painter) -> dict[str, Any]:
        """The run that records belong to, without its number of items, so that a longer run can extend it."""
        return {
            "painter": painter.identity,
            "suite": self.suite.value,
            "setting": self.setting.value,
            "seed": self.seed,
            "words": self.words,
            "split": self.split.value,
        }


@dataclass(frozen=True)
class Record:
    """One item's tallies by score."""

    number: int
    tallies: dict[str, Tally]

    @property
    def faults(self) -> float:
        """Number of faults, which orders the worst items: missing, extra and misplaced objects, and the background."""
        names = ("object_recall", "object_precision", "position_accuracy", "background_accuracy")
        return sum(self.tallies[n].counted - self.tallies[n].right for n in names)

    def to_json(self) -> dict[str, Any]:
        return {"number": self.number, "tallies": {n: [t.right, t.counted] for n, t in self.tallies.items()}}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Record:
        return cls(int(value["number"]), {n: Tally(*pair) for n, pair in value["tallies"].items()})


def score_drawn(item: AnyItem, drawn: Drawn, likeness: Likeness | None) -> dict[str, Tally]:
    """All SCORES of one picture; those that were not asked for, or have no evaluator, count nothing."""
    picture = to_picture(drawn.image)
    reading = read_picture(picture)
    scene = score_free(item, reading) if isinstance(item, FreeItem) else score_scene(item, reading)
    tallies = scene | score_crispness(picture, drawn.boxes, reading.background)
    tallies |= dict.fromkeys((*TEXT_SCORES, "clip_similarity"), NOTHING)
    if isinstance(item, BenchItem) and drawn.text is not None:
        tallies |= score_text(item, drawn.text)
    if isinstance(item, BenchItem) and likeness is not None:  # a free one has no single true picture
        tallies["clip_similarity"] = Tally(likeness(drawn.image, Image.fromarray(render(item.target))), 1.0)
    return {name: tallies[name] for name in SCORES}


def score_item(plan: Plan, painter: Painter, likeness: Likeness | None, number: int) -> Record:
    """Draw item `number` and score it."""
    item = plan.item(number)
    drawn = painter.draw(item, seed=noise_seed(plan, number), words=plan.words)
    return Record(number, score_drawn(item, drawn, likeness))


def run_plan(
    plan: Plan,
    painter: Painter,
    likeness: Likeness | None,
    *,
    kept: Path | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
    scored: Callable[[Sequence[int]], Iterator[Record]] | None = None,
) -> list[Record]:
    """Draw and score every item. `kept`: a file of records, from which a stopped run resumes.

    `progress(done, total)` is called after each item. `scored` gives the records of item numbers in any order; by
    default `painter` draws them in turn. InputError if the records are of another run.
    """
    scored = scored or (lambda numbers: (score_item(plan, painter, likeness, n) for n in numbers))
    records: dict[int, Record] = {}
    if kept is not None:
        records = _read_own(kept, plan.identity(painter)) if kept.exists() else {}
        _write_kept(kept, plan.identity(painter), records)
    missing = [number for number in range(plan.items) if number not in records]
    for done, record in enumerate(scored(missing), plan.items - len(missing) + 1):
        records[record.number] = record
        if kept is not None:
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record.to_json()) + "\n")
        progress(done, plan.items)
    return [records[number] for number in range(plan.items)]


def noise_seed(plan: Plan, number: int) -> int:
    """Each item has noise of its own, the same in every run."""
    if isinstance(plan.setting, FreeSetting):
        number = free_items(plan.setting)[number].number  # as in its file
    return plan.seed * 1_000_003 + number


@dataclass(frozen=True)
class KeptRecords:
    """A file that `run_plan` wrote: what the run was (see `Plan.identity`), and its records by item number."""

    path: Path
    identity: dict[str, Any]
    records: dict[int, Record]


def read_kept(path: Path, option: str) -> KeptRecords:
    """The file's whole records. InputError, which names the command line's `option`, if it cannot be read."""
    if not path.exists():
        raise InputError(f"records {path} do not exist; give {option} a file that --resume wrote")
    try:
        first, *lines = read_text(path, "records").splitlines() or [""]
        told = parse_json(first, "their first line")
        if not isinstance(told, dict):
            raise TypeError("its first line does not say what run it is of")
        # a killed run may leave half a line at the end: that item is drawn again
        whole = [parse_json(line, "a line", Numbers.ANY) for line in lines if line.endswith("}}")]
        records = [Record.from_json(value) for value in whole]
    except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).partition(";")[0]
        raise InputError(f"records {path} cannot be read ({reason}); give another {option} file") from None
    return KeptRecords(path, told, {record.number: record for record in records})


def _read_own(path: Path, identity: dict[str, Any]) -> dict[int, Record]:
    kept = read_kept(path, "--resume")
    told = _with_split(kept.identity)
    if told != identity:
        changed = [name for name in identity if told.get(name) != identity[name]]
        raise InputError(
            f"records {path} are of a run with another {' and '.join(changed)}; give another --resume file"
        )
    return kept.records


def _with_split(identity: dict[str, Any]) -> dict[str, Any]:
    """A run's identity as it is written now: records that name no split are validation."""
    return {"split": Split.VALIDATION.value, **identity}


def _write_kept(path: Path, identity: dict[str, Any], records: dict[int, Record]) -> None:
    """The records so far, without the half line that a kill may have left: the next one is appended to it."""
    lines = [json.dumps(value) for value in (identity, *(record.to_json() for record in records.values()))]
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def summarise(plan: Plan, records: Sequence[Record]) -> dict[str, Any]:
    """The object that `quality.py --json` prints."""
    scores = {name: bootstrap([r.tallies[name] for r in records], seed=plan.seed).to_json() for name in SCORES}
    return {"suite": plan.suite.value, "setting": plan.setting.value, "items": len(records), "scores": scores}


def check_same_items(plan: Plan, other: KeptRecords) -> None:
    """InputError unless the other records are of the plan's items: then, and only then, each picture has its pair."""
    ours = {"suite": plan.suite.value, "setting": plan.setting.value, "seed": plan.seed, "split": plan.split.value}
    told = _with_split(other.identity)
    if changed := [f"{name} {told.get(name)}, not {value}" for name, value in ours.items() if told.get(name) != value]:
        raise InputError(f"records {other.path} are of {' and '.join(changed)}; give --against records of the same")
    if strange := set(range(plan.items)) ^ other.records.keys():
        raise InputError(
            f"records {other.path} hold {len(other.records)} items, this run has {plan.items}, and number "
            f"{min(strange)} is in one of the two alone; give the same --items, of a run that is finished"
        )


def compare(plan: Plan, records: Sequence[Record], other: KeptRecords) -> dict[str, Any]:
    """`records` minus the other's, score by score over the same items; `check_same_items` must hold.

    Scores of text are left out where the two runs ask for a different number of words, and so is any score that one of
    them did not count. `whole_scenes` are the items whose scene is whole in one run alone.
    """
    pairs = [(record, other.records[record.number]) for record in records]
    unlike = TEXT_SCORES if other.identity.get("words") != plan.words else ()
    found = {}
    for name in (name for name in SCORES if name not in unlike):
        columns = [[pair[side].tallies.get(name, NOTHING) for pair in pairs] for side in (0, 1)]
        if (score := difference(*columns, seed=plan.seed)).value is not None:
            found[name] = score.to_json()
    ours, theirs = ([pair[side].tallies["whole_scene"].right for pair in pairs] for side in (0, 1))
    changed = {
        "only_this": sum(a > b for a, b in zip(ours, theirs, strict=True)),
        "only_that": sum(a < b for a, b in zip(ours, theirs, strict=True)),
    }
    return {"records": str(other.path), "run": other.identity, "differences": found, "whole_scenes": changed}


def counts(records: Sequence[Record]) -> dict[str, float]:
    """The size of each score's sample: objects, boxes, names or items."""
    return {name: float(np.sum([r.tallies[name].counted for r in records])) for name in SCORES}


def worst(records: Sequence[Record], count: int) -> list[int]:
    """Numbers of the items with most faults, the worst first; of equals, those whose sprites are least crisp."""

    def order(record: Record) -> tuple[float, float]:
        crisp = record.tallies["sprite_psnr_db"]
        return -record.faults, crisp.right / crisp.counted if crisp.counted else 0.0

    return [record.number for record in sorted(records, key=order)[:count]]


def redraw(plan: Plan, painter: Painter, numbers: Sequence[int]) -> Iterator[tuple[AnyItem, Drawn]]:
    """Items with their pictures, drawn again: the same seed gives the same picture."""
    for number in numbers:
        item = plan.item(number)
        yield item, painter.draw(item, seed=noise_seed(plan, number), words=plan.words)
