"""Draws items with every arm and keeps what each picture scored, so that a stopped run can be resumed.

A line of the file is `{"settings": ...}`, which hold for all lines after it, or one item's tallies by variant.
An item may have several lines: a variant that was added later is drawn alone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgcc_benchmarks.ablation.arms import ArmsPainter, Variant
from mgcc_benchmarks.ablation.report import ItemTallies
from mgcc_benchmarks.ablation.settings import Settings, differences
from mgcc_benchmarks.bootstrap import Tally
from mgcc_benchmarks.storybench.evaluation import Likeness, Plan, noise_seed, score_drawn
from mgcc_ref.story.bench import BenchItem
from mgcc_runtime.errors import InputError
from mgcc_runtime.reading import Numbers, parse_json, read_text

log = logging.getLogger("mgcc.benchmarks")


def draw_items(
    plan: Plan,
    painter: ArmsPainter,
    likeness: Likeness | None,
    kept: ItemRecords,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[ItemTallies]:
    """Draw and score every item with every variant that `kept` has no record of; `progress(done, total)` after each."""
    found = kept.read(painter.variants)
    for number in range(plan.items):
        tallies = found.setdefault(number, {})
        if missing := [variant for variant in painter.variants if variant not in tallies]:
            item = plan.item(number)
            assert isinstance(item, BenchItem), "the ablation's suites are made from templates"
            drawn = painter.draw(item, noise_seed(plan, number), missing)
            fresh = {variant: score_drawn(item, d, likeness) for variant, d in drawn.items()}
            kept.append(number, fresh)
            tallies |= fresh
        progress(number + 1, plan.items)
    return [{variant: found[number][variant] for variant in painter.variants} for number in range(plan.items)]


class ItemRecords:
    """The file of records at `path`, of pictures that are drawn with `settings` (see `drawing_settings`)."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self._told = False  # whether the file's last settings are ours

    def read(self, variants: Sequence[Variant]) -> dict[int, dict[Variant, Mapping[str, Tally]]]:
        """Every whole record of these variants, by item. InputError if some were drawn with other settings.

        Records without settings above them are taken as they are, with one warning.
        """
        known = {variant.name: variant for variant in variants}
        found: dict[int, dict[Variant, Mapping[str, Tally]]] = {}
        said, unknown = False, 0
        for value in self._lines():
            if "settings" in value:
                self._check(value["settings"])
                said, self._told = True, value["settings"] == self.settings
                continue
            unknown += not said
            shown = {known[name]: tallies for name, tallies in value["variants"].items() if name in known}
            found.setdefault(value["number"], {}).update({v: _tallies(t) for v, t in shown.items()})
        if unknown:
            log.warning(
                "%d records in %s do not tell with which steps and weights they were drawn; they are taken as they are",
                unknown,
                self.path,
            )
        return found

    def append(self, number: int, tallies: ItemTallies) -> None:
        """Write one item's record, below our settings; `read` comes first."""
        lines: list[dict[str, Any]] = [] if self._told else [{"settings": self.settings}]
        shown = {v.name: {s: [t.right, t.counted] for s, t in scores.items()} for v, scores in tallies.items()}
        lines.append({"number": number, "variants": shown})
        # a killed run may leave half a line: new lines start on their own
        start = "\n" if self._ends_in_half_a_line() else ""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(start + "".join(json.dumps(line) + "\n" for line in lines))
        self._told = True

    def _lines(self) -> Iterator[dict[str, Any]]:
        for line in read_text(self.path, "records").splitlines() if self.path.exists() else ():
            try:
                value = parse_json(line, "a line", Numbers.ANY)
            except InputError:  # half a line: its item is drawn again
                continue
            yield value

    def _ends_in_half_a_line(self) -> bool:
        if not self.path.exists() or not self.path.stat().st_size:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

    def _check(self, told: Settings) -> None:
        if wrong := differences(told, self.settings):
            raise InputError(
                f"records {self.path} were drawn with {' and '.join(wrong)}; "
                "give the options and weights of then, another --folder, or move the file away to draw anew"
            )


def _tallies(value: Mapping[str, Sequence[float]]) -> dict[str, Tally]:
    return {score: Tally(*pair) for score, pair in value.items()}
