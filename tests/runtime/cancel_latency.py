"""From a cancel to the request's end, told apart from what the machine itself is late by."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from mgcc_runtime import Cancel, CancelledError, Pipeline
from mgcc_runtime.prompt import Part

LATENCY_MS = 150.0
_BEAT_S = 0.005


@dataclass
class Lateness:
    """How late a thread that only sleeps was woken, at worst: a busy machine is late for every thread."""

    worst_ms: float = 0.0


@contextmanager
def lateness() -> Iterator[Lateness]:
    """Measured from here to the end of the block."""
    found, ended = Lateness(), threading.Event()

    def beat() -> None:
        while not ended.is_set():
            before_s = time.perf_counter()
            time.sleep(_BEAT_S)
            found.worst_ms = max(found.worst_ms, (time.perf_counter() - before_s - _BEAT_S) * 1e3)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def latencies_ms(pipe: Pipeline, parts: Sequence[Part], words: int, rounds: int) -> list[float]:
    """From `cancel` at random moments to the request's end, less what the machine was late by meanwhile."""
    pick, found = random.Random(0), []
    start_s = time.perf_counter()
    pipe.generate(parts, words=words)
    whole_s = time.perf_counter() - start_s
    for _ in range(rounds):
        cancel, ended_s = Cancel(), []

        def draw(cancel: Cancel = cancel, ended_s: list[float] = ended_s) -> None:
            with pytest.raises(CancelledError):
                pipe.generate(parts, words=words, cancel=cancel)
            ended_s.append(time.perf_counter())

        thread = threading.Thread(target=draw)
        thread.start()
        time.sleep(pick.uniform(0, 0.8 * whole_s))
        with lateness() as late:
            asked_s = time.perf_counter()
            cancel.cancel()
            thread.join(60)
        found.append((ended_s[0] - asked_s) * 1e3 - late.worst_ms)
    return found
