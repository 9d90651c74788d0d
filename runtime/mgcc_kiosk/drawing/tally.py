"""What the server has done, in numbers: no word of a visitor's is among them."""

from __future__ import annotations

import threading
from collections import Counter

from mgcc_kiosk.drawing.events import End, Failed, Finished
from mgcc_kiosk.drawing.jobs import Job, State

BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Tally:
    """From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: Counter[State] = Counter()
        self._refusals: Counter[str] = Counter()
        self._pictures, self._seconds, self._within = 0, 0.0, [0] * len(BUCKETS_S)

    def ended(self, job: Job, end: End) -> None:
        """A job is over."""
        with self._lock:
            if not isinstance(end, Finished):
                self._ends[State.ERROR if isinstance(end, Failed) else State.CANCELLED] += 1
                return
            took_s = end.drawn.timings_ms.get("total", 0.0) / 1e3
            self._ends[State.DONE] += 1
            self._pictures += len(end.drawn.pictures)
            self._seconds += took_s
            for i, bound in enumerate(BUCKETS_S):
                self._within[i] += took_s <= bound

    def refused(self, code: str) -> None:
        """A request was not taken."""
        with self._lock:
            self._refusals[code] += 1

    @property
    def pictures(self) -> int:
        return self._pictures

    @property
    def seconds(self) -> float:
        """Of all finished jobs together."""
        return self._seconds

    def count(self, state: State) -> int:
        return self._ends[state]

    def refusals(self) -> dict[str, int]:
        with self._lock:
            return dict(self._refusals)

    def within(self) -> list[int]:
        """Finished jobs that took at most each of BUCKETS_S."""
        with self._lock:
            return list(self._within)
