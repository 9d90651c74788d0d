"""The queue: bounded, and fair by session. Whoever asks ten times waits behind whoever asks once.

Each job gets a round when it comes: the one after its session's last, or the present one. Jobs are taken by round, and
in a round as they came.
"""

from __future__ import annotations

import itertools
import threading

from mgcc_kiosk.drawing.jobs import Job
from mgcc_kiosk.errors import ApiError, Code


class FairQueue:
    """From any thread."""

    def __init__(self, most: int) -> None:
        self._most, self._changed = most, threading.Condition()
        self._waiting: list[tuple[int, int, Job]] = []  # round, number, job; sorted
        self._numbers, self._round, self._closed = itertools.count(), 0, False

    def put(self, job: Job, retry_after_s: float) -> None:
        """ApiError where it is full, with how long to wait, or closed."""
        with self._changed:
            if self._closed:
                raise ApiError(Code.SHUTTING_DOWN, "the server ends; ask again when it is back", retry_after_s=5)
            if len(self._waiting) >= self._most:
                raise ApiError(
                    Code.QUEUE_FULL, f"{self._most} jobs wait already, which is all that do; ask again a little later",
                    retry_after_s=retry_after_s,
                )  # fmt: skip
            mine = [turn for turn, _, other in self._waiting if other.order.session == job.order.session]
            self._waiting.append((max(self._round, *(turn + 1 for turn in mine), 0), next(self._numbers), job))
            self._waiting.sort(key=lambda entry: entry[:2])
            self._changed.notify_all()

    def take(self) -> Job | None:
        """The next job, waited for; None once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            self._round, _, job = self._waiting.pop(0)
            return job

    def remove(self, job: Job) -> bool:
        """Whether it waited still."""
        with self._changed:
            left = [entry for entry in self._waiting if entry[2] is not job]
            found = len(left) < len(self._waiting)
            self._waiting = left
            return found

    def order(self) -> list[Job]:
        """As they will be taken."""
        with self._changed:
            return [job for _, _, job in self._waiting]

    def close(self) -> list[Job]:
        """Take no more; gives those that waited, which are no longer in it."""
        with self._changed:
            self._closed = True
            left, self._waiting = [job for _, _, job in self._waiting], []
            self._changed.notify_all()
            return left
