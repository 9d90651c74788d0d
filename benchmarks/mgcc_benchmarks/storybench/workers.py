"""StoryBench over several processes: each has a pipeline of its own, and items are handed out one by one.

Reading a picture and scoring it take one thread, as does much of a small model: 40 items of the story profile in fp32
took 40 s in two processes of one thread, and 53 s in one process of two threads, loading included.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from mgcc_benchmarks.storybench.evaluation import Likeness, Plan, Record, score_item
from mgcc_benchmarks.storybench.evaluator import find_likeness
from mgcc_benchmarks.storybench.painters import BundlePainter, Oracle, Painter
from mgcc_runtime import Pipeline

#: The state of this process, once `_open` has run in it.
_STATE: list[tuple[Plan, Painter, Likeness | None]] = []


def _open(plan: Plan, bundle: Path, oracle: Oracle, steps: int | None, threads: int) -> None:
    _STATE[:] = [(plan, BundlePainter(Pipeline.load(bundle, threads=threads), oracle, steps), find_likeness())]


def _score(number: int) -> Record:
    plan, painter, likeness = _STATE[0]
    return score_item(plan, painter, likeness, number)


def scored_by_workers(
    plan: Plan, bundle: Path, oracle: Oracle, steps: int | None = None, *, workers: int, threads: int
) -> Callable[[Sequence[int]], Iterator[Record]]:
    """The function for `run_plan`'s `scored`: the same records as from one process, in the order of completion."""

    def scored(numbers: Sequence[int]) -> Iterator[Record]:
        context = multiprocessing.get_context("spawn")  # engines' threads do not survive a fork
        with ProcessPoolExecutor(workers, context, _open, (plan, bundle, oracle, steps, threads)) as pool:
            waiting = [pool.submit(_score, number) for number in numbers]
            try:
                for done in as_completed(waiting):
                    yield done.result()
            finally:
                pool.shutdown(cancel_futures=True)

    return scored
