"""The samples of a run's steps: every sample once an epoch, in an order that depends on the seed alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeVar

import numpy as np

from mgcc_ref.train.data.sample import DataError, PictureError, Sample, Samples

log = logging.getLogger("mgcc.train")

MOST_BROKEN = 50  # pictures in a row that are skipped: of a million web addresses some are always gone
_HELD_BACK_SHARE = 10  # at most a tenth
Found = TypeVar("Found")


class Draws:
    """A data set split into training samples and the last samples, which are held back."""

    def __init__(self, samples: Samples, seed: int, held_back: int) -> None:
        count = len(samples)
        if count < 2:
            raise DataError(f"the data has {count} sample, expected at least 2, since one is held back; give more")
        self.samples, self._seed = samples, seed
        self.held_back = range(count - max(1, min(held_back, count // _HELD_BACK_SHARE)), count)
        self.count = self.held_back.start
        self._order = lru_cache(2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, epoch]).permutation(self.count)

    def part(self, step: int, batch: int, part: int, parts: int) -> Iterator[int]:
        """Positions of one of `parts` parts of a step's batch; together they are the whole batch."""
        start = step * batch
        return iter(range(start + part * batch // parts, start + (part + 1) * batch // parts))

    def at(self, position: int, made: Callable[[Sample], Found | None]) -> Found:
        """The result of `made` for the sample at a position of the run.

        The next sample replaces one with a broken picture, or for which `made` returns None. DataError after
        `MOST_BROKEN` of them.
        """
        epoch, place = divmod(position, self.count)
        return self._first(int(self._order(epoch)[place]), range(self.count), made)

    def held(self, index: int, made: Callable[[Sample], Found | None]) -> Found:
        """The result of `made` for held-back sample `index`, with the same replacement, by a held-back one."""
        return self._first(index, self.held_back, made)

    def _first(self, start: int, among: range, made: Callable[[Sample], Found | None]) -> Found:
        reason = "none of them has a box"
        for tried in range(MOST_BROKEN):
            try:
                place = among[(start - among.start + tried) % len(among)]
                if (found := made(self.samples[place])) is not None:
                    return found
            except PictureError as error:
                reason = str(error)
                log.warning("%s; the next sample takes its place", error)
        raise DataError(f"{MOST_BROKEN} samples in a row are of no use ({reason}); look whether the data is whole")
