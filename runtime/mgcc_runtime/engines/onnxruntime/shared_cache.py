"""Keys and values in buffers that a graph writes in place, and who may write where.

A graph of this form takes buffers (1, H_kv, C, d) of fixed capacity as past and gives the same memory as present: the
new positions are written behind the P that `PAST_LENGTH` says, and nothing is copied. To its callers a cache stays an
immutable value all the same. Each is a `View` of the first positions of a buffer; a view may be extended in place only
while no living view of the same buffer is longer, since then nobody can read what is written over. Otherwise its
positions are copied into a buffer of its own, once.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mgcc_runtime.errors import ContractError

Array = NDArray[Any]

_FLOAT32 = np.dtype(np.float32)


class Buffer:
    """All layers' keys and values: one block of memory, an array (1, H_kv, C, d) float32 for each name."""

    def __init__(self, names: Sequence[str], shape: tuple[int, ...]) -> None:
        # one block, so large that the system gives it page by page when written to, and zeroed
        block = np.zeros((len(names), *shape), np.float32)
        self.arrays = dict(zip(names, block, strict=True))
        self.values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in self.arrays.items()}
        self.capacity = shape[2]
        #: Of each session that ran on this buffer: making one costs more than a small layer. Never in use twice at a
        #: time, since only one view of a buffer is being extended.
        self.bindings: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._lock = Lock()
        self._views: list[weakref.ref[View]] = []

    def claim(self, before: int, after: int) -> View | None:
        """A view of `after` positions whose own are those from `before` on; None where a living view has those."""
        with self._lock:
            self._views = [ref for ref in self._views if ref() is not None]
            if any(view.length > before for ref in self._views if (view := ref()) is not None):
                return None
            view = View(self, after)
            self._views.append(weakref.ref(view))
            return view


class View:
    """The first `length` positions of a buffer; they do not change while this lives."""

    __slots__ = ("__weakref__", "buffer", "length")

    def __init__(self, buffer: Buffer, length: int) -> None:
        self.buffer, self.length = buffer, length


class SharedTensor:
    """One layer's keys or values (1, H_kv, length, d) in a view; a kept tensor like any other to callers."""

    __slots__ = ("name", "view")

    def __init__(self, view: View, name: str) -> None:
        self.view, self.name = view, name

    @property
    def shape(self) -> tuple[int, ...]:
        one, heads, _, width = self.view.buffer.arrays[self.name].shape
        return one, heads, self.view.length, width

    @property
    def dtype(self) -> np.dtype[Any]:
        return _FLOAT32

    def numpy(self) -> Array:
        return _readable(self).copy()


def extended(stage: str, past: Mapping[str, Any], shape: tuple[int, ...], positions: int) -> View:
    """A view with room for `positions` more behind `past`, whose own positions are in it already.

    `past`: arrays or kept tensors (1, H_kv, P, d) by name, of whatever engine; `shape` is the buffers'.
    """
    before = next(iter(past.values())).shape[2]
    after = before + positions
    if after > shape[2]:
        raise ContractError(
            f"stage {stage} got {before} positions of cache and {positions} new ones, expected at most {shape[2]} in "
            "all; shorten the prompt, or rebuild the bundle for a longer context"
        )
    common = _common_view(past)
    if common is not None and (view := common.buffer.claim(before, after)) is not None:
        return view
    buffer = Buffer(tuple(past), shape)
    for name, tensor in past.items():
        buffer.arrays[name][:, :, :before] = _readable(tensor)
    view = buffer.claim(0, after)
    assert view is not None
    return view


def _common_view(past: Mapping[str, Any]) -> View | None:
    """The one view that all of `past` is of, each under its own name; None for anything else."""
    first = next(iter(past.values()))
    if not isinstance(first, SharedTensor):
        return None
    same = all(isinstance(t, SharedTensor) and t.view is first.view and t.name == name for name, t in past.items())
    return first.view if same else None


def _readable(tensor: Any) -> Array:
    """Values for reading alone, without a copy where they are in the host's memory."""
    if not isinstance(tensor, SharedTensor):
        return tensor if isinstance(tensor, np.ndarray) else np.asarray(tensor.numpy())
    array: Array = tensor.view.buffer.arrays[tensor.name]
    return array[:, :, : tensor.view.length]
