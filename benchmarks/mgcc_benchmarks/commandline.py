"""Helpers of the launchers' command lines; light, so that a benchmark of memory and start-up may import them."""

from __future__ import annotations

import time
from pathlib import Path

from mgcc_runtime.commands.console import Progress
from mgcc_runtime.options import WholeNumber

ITEMS = WholeNumber("items", 1, 1_000_000)
RESULTS = Path(__file__).parents[1] / "results"


_QUIET_S = 30.0  # between two lines of progress where standard error is no terminal


def progress() -> Progress:
    """Progress on standard error: a line rewritten on a terminal, a new one every half minute elsewhere."""
    return Progress(_QUIET_S)


class ItemProgress:
    """Items done and time left."""

    def __init__(self, what: str = "pictures") -> None:
        self._what, self._progress, self._started_s = what, progress(), time.monotonic()

    def show(self, done: int, total: int) -> None:
        left_min = (time.monotonic() - self._started_s) / done * (total - done) / 60
        self._progress.show(f"{done} of {total} {self._what}, {left_min:.1f} min left")
        if done == total:
            self._progress.clear()
