"""The time of a request, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mgcc_runtime.cancelling import Cancel


@dataclass
class Stopwatch:
    """Adds up the time of a request by stage; no stage of a cancelled one begins."""

    cancel: Cancel = field(default_factory=Cancel)
    started_s: float = field(default_factory=time.perf_counter)
    milliseconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Around one call of a stage, or what is as short; CancelledError where the request is no longer wanted."""
        self.cancel.check()
        start_s = time.perf_counter()
        try:
            with self.cancel.at_work():
                yield
        finally:
            spent_ms = (time.perf_counter() - start_s) * 1e3
            self.milliseconds[name] = self.milliseconds.get(name, 0.0) + spent_ms

    def timings(self) -> dict[str, float]:
        """Milliseconds by stage, rounded to microseconds; "total" also holds what is between the stages."""
        total_ms = (time.perf_counter() - self.started_s) * 1e3
        return {name: round(ms, 3) for name, ms in {**self.milliseconds, "total": total_ms}.items()}
