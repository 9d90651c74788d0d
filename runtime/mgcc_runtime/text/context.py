"""What the language model has read so far; everything else goes on from here."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.stages import Floats, LlmStep

ToldPart: TypeAlias = "str | Floats"  # a text, or an image's visual tokens (k, D)


@dataclass(eq=False)
class Told:
    """What the user has told, reading by reading, without the template: the caption of a layout that is written.

    `read` is the layout prompt's cache up to here, kept by the in-context grounder for the next turn. It may be dropped
    at any time, and is then made again.
    """

    parts: tuple[ToldPart, ...]
    before: Told | None
    read: LlmStep | None = None


@dataclass(frozen=True)
class Context:
    """Of S positions; immutable, so that going on from it leaves it as it is."""

    words: tuple[str, ...]  # the user's word at each of the S positions
    features: Floats  # f_mm (1, S, D_f)
    end: LlmStep  # logits of the last position, and the cache
    told: Told | None = None

    @property
    def length(self) -> int:
        return len(self.words)

    @property
    def nbytes(self) -> int:
        """Of features and caches, these in float32; an engine may keep them in half of that."""
        kept = self.told.read if self.told is not None else None
        return self.features.nbytes + _nbytes(self.end.cache) + (_nbytes(kept.cache) if kept is not None else 0)


def _nbytes(cache: KvCache) -> int:
    return sum(prod(tensor.shape) * tensor.dtype.itemsize for tensor in cache.tensors)
