"""What the launchers' command lines share; light, so that a benchmark of memory and start-up may import it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NoReturn

from mgcc_runtime.console import is_terminal
from mgcc_runtime.errors import EXIT_BAD_INPUT
from mgcc_runtime.options import WholeNumber

ITEMS = WholeNumber("items", 1, 1_000_000)
RESULTS = Path(__file__).parents[1] / "results"


class QuietParser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)


class Doing:
    """Elapsed time and what is being done, on standard error: rewritten on a terminal, every half minute elsewhere."""

    _QUIET_S = 30.0

    def __init__(self) -> None:
        self._started_s = self._said_s = time.monotonic()
        self._terminal = is_terminal(sys.stderr)

    def show(self, doing: str) -> None:
        now_s = time.monotonic()
        text = f"[{now_s - self._started_s:6.1f} s] {doing}"
        if self._terminal:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif now_s - self._said_s > self._QUIET_S:
            self._said_s = now_s
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
