"""The looks at the test split, with date and weights: a record in the project, written by the command itself.

A set of weights is judged by the test split once; a second look needs a reason. A stopped run that is resumed is the
same look, and so is a finished one whose records are added up again.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mgcc_ref.train
from mgcc_benchmarks.storybench.evaluation import Plan, Record, read_kept, summarise
from mgcc_runtime.errors import InputError
from mgcc_runtime.files import write_atomically
from mgcc_runtime.reading import parse_json, read_text

LOOKS = Path(mgcc_ref.train.__file__).with_name("test_looks.json")


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


def begin_look(path: Path, plan: Plan, painter: str, *, kept: Path | None, why_again: str) -> Look:
    """Record a look before its first picture, and return it.

    InputError if these weights were looked at before, by a run that is neither this one nor explained by `why_again`.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    new = Look(
        now,
        painter.partition(",")[0],
        painter,
        plan.suite.value,
        plan.setting.value,
        plan.seed,
        plan.items,
        why_again,
        {},
    )
    looks = read_looks(path)
    before = [look for look in looks if look.subject == new.subject]
    if before and _goes_on(before[-1], plan, painter, kept):
        return before[-1]
    if before and not why_again:
        raise InputError(
            f"the test split was looked at with these weights on {before[-1].date[:10]} ({plan.suite.value}, "
            f"{plan.setting.value}); choose weights by --split validation, go on with that run's --resume file, or say "
            "--look-again WHY"
        )
    _write(path, [*looks, new])
    return new


def _goes_on(last: Look, plan: Plan, painter: str, kept: Path | None) -> bool:
    """Whether this run continues the last look: that is unfinished, or `kept` has its records."""
    if last.drawn_by != painter:
        return False
    if not last.scores:
        return True
    if kept is None or not kept.exists():
        return False
    found = read_kept(kept, "--resume")
    return found.identity["painter"] == painter and len(found.records) >= min(last.items, plan.items)


def end_look(path: Path, look: Look, plan: Plan, records: Sequence[Record]) -> None:
    """Record the scores of a finished look."""
    found: dict[str, Any] = summarise(plan, records)["scores"]
    scores = {name: None if s["value"] is None else round(s["value"], 4) for name, s in found.items()}
    done = replace(look, items=len(records), scores=scores)
    _write(path, [done if each == look else each for each in read_looks(path)])


def _write(path: Path, looks: Sequence[Look]) -> None:
    lines = ",\n".join(json.dumps(asdict(look)) for look in looks)
    write_atomically(path, f"[\n{lines}\n]\n".encode())
