"""The grid of a weight-only layer: blocks of inputs that share a scale, and rounding to nearest on it.

As in ONNX Runtime's MatMulNBits: codes from 0 to 2^bits - 1 around a zero point of half of that, and a scale whose sign
is chosen so that the weight of largest magnitude falls on the code -2^(bits - 1), which has no positive twin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgcc_calibration.errors import MethodError

Floats = NDArray[np.float32]
Codes = NDArray[np.int16]


@dataclass(frozen=True)
class Grid:
    """Bits of a weight, and how many inputs share a scale."""

    bits: int
    block: int

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or self.block < 16 or self.block & (self.block - 1):
            raise MethodError(
                f"weights of {self.bits} bits in blocks of {self.block} were asked for, expected 4 or 8 bits and a "
                "power of two from 16 up; choose such"
            )

    @property
    def half(self) -> int:
        """The zero point, and the largest magnitude of a code."""
        return 1 << (self.bits - 1)

    def blocks(self, inputs: int) -> int:
        return -(-inputs // self.block)


def block_scales(weights: Floats, grid: Grid) -> Floats:
    """(K, N) -> (blocks, N): signed scales; where a block is all zeros, 0."""
    return np.stack([one_scale(weights[i : i + grid.block], grid) for i in range(0, len(weights), grid.block)])


def one_scale(block: Floats, grid: Grid) -> Floats:
    """Scales (N,) of one block (n, N)."""
    extreme = np.take_along_axis(block, np.abs(block).argmax(axis=0)[None], axis=0)[0]
    return np.asarray(extreme / np.float32(-grid.half), np.float32)


def to_codes(values: Floats, scale: Floats, grid: Grid) -> Codes:
    """Nearest codes (n, N), signed, of values with scales (N,) or (n, N)."""
    with np.errstate(divide="ignore"):
        inverse = np.where(scale != 0, np.float32(1) / scale, np.float32(0))
    # half up, as MatMulNBits' own quantiser rounds: it adds 0.5 and the zero point, then cuts
    codes = np.floor(values * inverse + np.float32(0.5))
    return np.asarray(np.clip(codes, -grid.half, grid.half - 1), np.int16)


def round_to_nearest(weights: Floats, grid: Grid) -> tuple[Codes, Floats]:
    """Codes (K, N) and scales (blocks, N) of the plain method."""
    scales = block_scales(weights, grid)
    return to_codes(weights, _spread(scales, len(weights), grid), grid), scales


def dequantised(codes: Codes, scales: Floats, grid: Grid) -> Floats:
    """The weights (K, N) that codes stand for."""
    return np.asarray(codes * _spread(scales, len(codes), grid), np.float32)


def _spread(scales: Floats, inputs: int, grid: Grid) -> Floats:
    return np.repeat(scales, grid.block, axis=0)[:inputs]
