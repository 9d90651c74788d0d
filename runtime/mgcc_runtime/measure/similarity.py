"""How close what was found is to what was expected: arrays, pictures, texts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Cosine of two arrays as vectors; 1 where both are zero."""
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    if length == 0:
        return 1.0 if np.array_equal(x, y) else 0.0
    return float(x @ y) / length


def relative_l2(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Distance over the length of what was expected; 0 where both are zero."""
    difference = float(np.linalg.norm(found.astype(np.float64) - expected.astype(np.float64)))
    length = float(np.linalg.norm(expected.astype(np.float64)))
    return difference / length if length else (0.0 if difference == 0 else float("inf"))


def psnr_db(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of 8-bit images; infinite where they are equal, 0 where their sizes differ."""
    if found.shape != expected.shape:
        return 0.0
    error = float(np.mean((found.astype(np.float64) - expected.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def common_prefix(found: tuple[int, ...], expected: tuple[int, ...]) -> float:
    """Length of the common beginning as a share of the longer one; 1 where both are empty."""
    longer = max(len(found), len(expected))
    same = 0
    for a, b in zip(found, expected, strict=False):
        if a != b:
            break
        same += 1
    return same / longer if longer else 1.0
