"""The two tasks of a language model, the same for every engine: a prompt in one pass, and tokens one by one.

Both sides are given the tokens that follow, so they do the same work even where one would have chosen another word.
The choice (the largest logit) is still made, and the parity check counts how often both agree.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mgcc_benchmarks.peers.worker import Outputs, WorkerSpec

Logits = NDArray[Any]  # (V,) float32 of the last position
Cache = TypeVar("Cache")


class LlmEngine(Protocol):
    """A language model with its cache."""

    versions: dict[str, str]

    def prefill(self, ids: NDArray[np.int64]) -> Logits:
        """Read (S,) tokens from an empty cache."""
        ...

    def rewind(self) -> None:
        """Return to the state right after the prefill."""
        ...

    def step(self, token: int) -> Logits:
        """Read one more token."""
        ...


class CachedLlm(ABC, Generic[Cache]):
    """An engine whose cache is a value: each pass takes one and makes a new one."""

    versions: dict[str, str]

    def __init__(self, empty: Cache) -> None:
        self.empty = self.start = self.now = empty

    @abstractmethod
    def read(self, ids: NDArray[np.int64], cache: Cache) -> Logits:
        """Read (S,) tokens behind `cache`; `now` becomes the cache with them."""

    def prefill(self, ids: NDArray[np.int64]) -> Logits:
        logits = self.read(ids, self.empty)
        self.start = self.now
        return logits

    def rewind(self) -> None:
        self.now = self.start

    def step(self, token: int) -> Logits:
        return self.read(np.array([token]), self.now)


class _LlmSide:
    def __init__(self, spec: WorkerSpec, engine: LlmEngine) -> None:
        arrays = spec.arrays("llm")
        self.prompt: NDArray[np.int64] = arrays["prompt_ids"]
        self.following: list[int] = arrays["next_ids"].tolist()
        self.engine, self.versions = engine, engine.versions


class PrefillSide(_LlmSide):
    """All tokens of a prompt in one pass, from an empty cache to the choice of the next token."""

    def outputs(self) -> Outputs:
        return {"logits": np.array(self.engine.prefill(self.prompt), np.float32)[None]}

    def run_ms(self) -> float:
        start_s = time.perf_counter()
        int(np.argmax(self.engine.prefill(self.prompt)))
        return (time.perf_counter() - start_s) * 1e3


class DecodeSide(_LlmSide):
    """One token after the other behind the prompt, timed per token."""

    def __init__(self, spec: WorkerSpec, engine: LlmEngine) -> None:
        super().__init__(spec, engine)
        engine.prefill(self.prompt)

    def outputs(self) -> Outputs:
        self.engine.rewind()
        return {"logits": np.stack([np.array(self.engine.step(token), np.float32) for token in self.following])}

    def run_ms(self) -> float:
        self.engine.rewind()
        start_s = time.perf_counter()
        for token in self.following:
            int(np.argmax(self.engine.step(token)))
        return (time.perf_counter() - start_s) * 1e3 / len(self.following)
