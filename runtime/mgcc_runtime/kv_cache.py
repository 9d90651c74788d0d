"""The language model's cache as an immutable value: extending it gives a new one, the old one stays usable.

So dropping the [IMG] positions, or a cancelled request, is going on from an older cache; nothing is undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from mgcc_runtime import contract
from mgcc_runtime.contract import Dimensions
from mgcc_runtime.engines import Feed, Outputs


@dataclass(frozen=True)
class KvCache:
    """Keys and values of `length` positions, in the order of `past_names`; each (1, H_kv, length, d) float32."""

    tensors: tuple[Feed, ...]
    length: int

    @classmethod
    def empty(cls, dimensions: Dimensions) -> KvCache:
        nothing = np.zeros((1, dimensions.kv_heads, 0, dimensions.head_dim), np.float32)
        return cls((nothing,) * (2 * dimensions.layers), 0)

    def feeds(self) -> dict[str, Feed]:
        """The cache inputs of the llm stage."""
        return dict(zip(_names(len(self.tensors) // 2)[0], self.tensors, strict=True))

    def extended(self, outputs: Outputs, positions: int) -> KvCache:
        """The cache after a call of the llm stage on `positions` new positions."""
        names = _names(len(self.tensors) // 2)[1]
        return KvCache(tuple(outputs.kept[name] for name in names), self.length + positions)


@cache
def _names(layers: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the cache's inputs and outputs; made once, since they are needed for every token."""
    return tuple(contract.past_names(layers)), tuple(contract.present_names(layers))
