"""Steps of a build, told as they begin, with a sign of life where one takes long. Standard library alone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

#: Called with (stage or file group, what is being done with it).
Progress = Callable[[str, str], None]

_TICK_S = 10.0
_FINISHED = ("done", "kept from an earlier build")  # steps after which nothing is under way


class ProgressPrinter:
    """Prints every step on standard error with the elapsed time. `started`: of `time.monotonic`, in seconds."""

    def __init__(self, started: float) -> None:
        self._started, self._step_started = started, time.monotonic()
        self._step = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> ProgressPrinter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def report(self, stage: str, step: str) -> None:
        """Called by the build at each step."""
        self._print(f"{stage}: {step}")
        self._step, self._step_started = "" if step in _FINISHED else f"{stage}: {step}", time.monotonic()

    def _tick(self) -> None:
        next_tick_s = _TICK_S
        while not self._stop.wait(min(0.5, _TICK_S)):
            elapsed_s = time.monotonic() - self._step_started
            if elapsed_s < _TICK_S or not self._step:
                next_tick_s = _TICK_S
            elif elapsed_s >= next_tick_s:
                self._print(f"{self._step} ({elapsed_s:.0f} s so far)")
                next_tick_s = elapsed_s + _TICK_S

    def _print(self, text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - self._started:6.1f} s] {text}\n")
        sys.stderr.flush()
