"""What a bundle brings for the layouts that its language model writes: worked examples, and token masks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.bundle.folder import REBUILD, Bundle
from mgcc_runtime.errors import BundleError, InputError
from mgcc_runtime.layout_text import LayoutPrompt, mask_key
from mgcc_runtime.names import LAYOUT_EXAMPLES, LAYOUT_MASKS
from mgcc_runtime.reading import read_json, read_npz

Ids = NDArray[np.int64]
# Of the masks' file: a key's number is that of its mask; a mask's ids lie one behind the other, each as how much it is
# above the one before, which packs ten times smaller.
_KEYS, _NUMBERS, _ENDS, _RISES = "keys", "numbers", "ends", "rises"


def read_examples(bundle: Bundle) -> LayoutPrompt:
    """The instruction and the examples, which whoever has the bundle may edit; BundleError in one sentence."""
    path = bundle.file(LAYOUT_EXAMPLES)
    try:
        return LayoutPrompt.from_json(read_json(path, "layout examples"))
    except ValueError as error:
        reason = f"layout examples {path} cannot be used: {error}"
    except InputError as error:
        reason = str(error)
    raise BundleError(f"{reason}; correct the file, or put back that of the build")


class Masks:
    """Which tokens may come next in a layout; looked up, since nothing about a grammar is left to compute."""

    def __init__(self, masks: Mapping[str, Ids], *, open_labels: bool) -> None:
        self._masks, self._open_labels = masks, open_labels

    @classmethod
    def load(cls, bundle: Bundle) -> Masks:
        """BundleError for a file of another form."""
        path = bundle.file(LAYOUT_MASKS)
        try:
            return cls(unpack_masks(read_npz(path, "layout masks")), open_labels=not bundle.labels())
        except (InputError, KeyError, ValueError, IndexError) as error:
            raise BundleError(f"layout masks {path} cannot be used ({error}); {REBUILD}") from None

    def allowed(self, line: str, lines_left: int) -> Ids:
        """Ids, rising, of the tokens that may follow `line`; BundleError if the file has none for such a place."""
        key = mask_key(line, lines_left, open_labels=self._open_labels)
        if key not in self._masks:
            raise BundleError(f"the bundle's layout masks have none for {line!r}; {REBUILD}")
        return self._masks[key]


def pack_masks(masks: Mapping[str, Ids]) -> bytes:
    """The masks' file, of ids by key; the same ids are written once."""
    different: dict[bytes, tuple[int, Ids]] = {}
    numbers = [different.setdefault(ids.tobytes(), (len(different), ids))[0] for ids in masks.values()]
    rows = [ids for _, ids in different.values()]
    arrays: dict[str, NDArray[Any]] = {
        _KEYS: np.array([*masks]),
        _NUMBERS: np.array(numbers, np.int32),
        _ENDS: np.cumsum([len(row) for row in rows]),
        _RISES: np.concatenate([np.diff(row, prepend=0) for row in rows]).astype(np.int32),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack_masks(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Ids]:
    """The inverse of `pack_masks`; KeyError, ValueError or IndexError for arrays of another form."""
    rows = [np.cumsum(row, dtype=np.int64) for row in np.split(arrays[_RISES], arrays[_ENDS][:-1])]
    return {str(key): rows[number] for key, number in zip(arrays[_KEYS], arrays[_NUMBERS], strict=True)}
