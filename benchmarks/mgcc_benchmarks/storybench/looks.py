"""The looks at the test split, with date and weights: a record in the project, written by the command itself.

A set of weights is judged by the test split once; a second look needs a reason. A stopped run that is resumed is the
same look, and so is a finished one whose records are added up again.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import mgcc_ref.train
from mgcc_benchmarks.storybench.evaluation import Plan, read_kept
from mgcc_ref.story.wording.phrases import Split
from mgcc_runtime.errors import InputError
from mgcc_runtime.files import write_atomically
from mgcc_runtime.reading import parse_json, read_text

LOOKS = Path(mgcc_ref.train.__file__).with_name("test_looks.json")


@dataclass(frozen=True)
class Asked:
    """What is looked at: items of a suite's setting, made from a seed."""

    suite: str
    setting: str
    seed: int
    items: int

    @staticmethod
    def of(plan: Plan) -> Asked:
        return Asked(plan.suite.value, plan.setting.value, plan.seed, plan.items)


@dataclass(frozen=True)
class Look:
    """One look. `weights` is the digest of the painter, `drawn_by` its whole identity (`Painter.identity`).

    `scores` is empty until all items are scored. A bundle of another precision has another digest: a look of its own.
    """

    date: str  # UTC, of its start
    weights: str
    drawn_by: str
    suite: str
    setting: str
    seed: int
    items: int
    why_again: str  # "" for the first look at these weights
    scores: Mapping[str, float | None]

    @property
    def subject(self) -> tuple[str, str, str, int]:
        """The combination that may be looked at once."""
        return self.weights, self.suite, self.setting, self.seed


def read_looks(path: Path) -> list[Look]:
    """Every look so far, the oldest first; InputError if the file cannot be read."""
    if not path.exists():
        return []
    try:
        return [Look(**value) for value in parse_json(read_text(path, "looks"), "looks")]
    except (InputError, TypeError) as error:
        reason = str(error).partition(";")[0]
        raise InputError(
            f"looks {path} cannot be read ({reason}); restore the file from the project's history"
        ) from None


def begin_look(path: Path, asked: Asked, painter: str, *, kept: Path | None, why_again: str) -> Look:
    """Record a look before its first picture, and return it.

    InputError if these weights were looked at before, by a run that is neither this one nor explained by `why_again`.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    new = Look(
        now,
        painter.partition(",")[0],
        painter,
        asked.suite,
        asked.setting,
        asked.seed,
        asked.items,
        why_again,
        {},
    )
    looks = read_looks(path)
    before = [look for look in looks if look.subject == new.subject]
    if before and _goes_on(before[-1], asked, painter, kept):
        return before[-1]
    if before and not why_again:
        raise InputError(
            f"the test split was looked at with these weights on {before[-1].date[:10]} ({asked.suite}, "
            f"{asked.setting}); choose weights by --split validation, go on with that run's --resume file, or say "
            "--look-again WHY"
        )
    _write(path, [*looks, new])
    return new


def _goes_on(last: Look, asked: Asked, painter: str, kept: Path | None) -> bool:
    """Whether this run continues the last look: that is unfinished, or `kept` has its records."""
    if last.drawn_by != painter:
        return False
    if not last.scores:
        return True
    if kept is None or not kept.exists():
        return False
    found = read_kept(kept, "--resume")
    return found.identity["painter"] == painter and len(found.records) >= min(last.items, asked.items)


def end_look(path: Path, look: Look, items: int, scores: Mapping[str, float | None]) -> None:
    """Record the scores of a finished look at `items` items."""
    rounded = {name: None if value is None else round(value, 4) for name, value in scores.items()}
    done = replace(look, items=items, scores=rounded)
    _write(path, [done if each == look else each for each in read_looks(path)])


def add_look_options(parser: argparse.ArgumentParser) -> None:
    """--split, --look-again and --looks."""
    parser.add_argument(
        "--split", type=Split, choices=[Split.VALIDATION, Split.TEST], default=Split.VALIDATION,
        metavar="validation|test", help="test: once for each set of weights, which is kept on record",
    )  # fmt: skip
    parser.add_argument("--look-again", default="", metavar="WHY", help="of --split test: why it is looked at again")
    parser.add_argument("--looks", type=Path, default=LOOKS, metavar="FILE.json", help="where looks are kept on record")


def _write(path: Path, looks: Sequence[Look]) -> None:
    lines = ",\n".join(json.dumps(asdict(look)) for look in looks)
    write_atomically(path, f"[\n{lines}\n]\n".encode())
