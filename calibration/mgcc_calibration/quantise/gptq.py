"""GPTQ (arXiv 2210.17323): round one input's weights after the other, and let those to come make up for the error.

What counts is the layer's output on calibration data: |X W - X Q|^2, whose curvature is the Gram matrix X^T X.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.quantise.grid import Codes, Floats, Grid, one_scale, to_codes
from mgcc_calibration.quantise.observe import Samples, run_over

_LAZY = 128  # inputs after which the rest is brought up to date in one product
_DAMPING = 0.01  # of the mean curvature, as in the paper: keeps rare inputs from taking all the error
_CHUNK_BYTES = 400_000_000  # of Gram matrices held at a time; a larger model takes more passes over the samples

Gram = NDArray[np.float64]


def gptq(weights: Floats, gram: Gram, grid: Grid) -> tuple[Codes, Floats]:
    """Codes (K, N) and scales (blocks, N) of weights (K, N), given X^T X (K, K)."""
    inputs = len(weights)
    factor = _inverse_factor(gram)
    left = weights.astype(np.float64)
    codes = np.zeros(weights.shape, np.int16)
    scales = np.zeros((grid.blocks(inputs), weights.shape[1]), np.float32)
    step = max(_LAZY, grid.block)
    for start in range(0, inputs, step):
        end = min(start + step, inputs)
        errors = np.zeros((end - start, weights.shape[1]))
        for i in range(start, end):
            if i % grid.block == 0:
                # from the weights as corrected so far: that is what has to be stored
                scales[i // grid.block] = one_scale(left[i : i + grid.block].astype(np.float32), grid)
            scale = scales[i // grid.block]
            codes[i] = to_codes(left[i].astype(np.float32), scale, grid)
            errors[i - start] = (left[i] - codes[i] * scale) / factor[i, i]
            left[i + 1 : end] -= np.outer(factor[i, i + 1 : end], errors[i - start])
        left[end:] -= factor[start:end, end:].T @ errors
    return codes, scales


def _inverse_factor(gram: Gram) -> Gram:
    """Upper Cholesky factor of the damped Gram matrix's inverse."""
    damped = gram.copy()
    diagonal = np.diagonal(damped).copy()
    mean = float(diagonal.mean()) or 1.0
    diagonal[diagonal == 0] = mean  # an input that was never on: nothing to correct for
    np.fill_diagonal(damped, diagonal + _DAMPING * mean)
    return np.linalg.cholesky(np.linalg.inv(damped)).T.copy()


def gram_matrices(
    graph: Graph, widths: dict[str, int], samples: Samples, threads: int = 1
) -> Iterator[tuple[str, Gram]]:
    """X^T X of each activation of `widths` (name -> K), a chunk of them a pass so that memory stays bounded."""
    for names in _chunks(widths):
        found = {name: np.zeros((widths[name], widths[name])) for name in names}
        for _, values in run_over(graph, names, samples(), threads):
            for name, value in values.items():
                rows = value.reshape(-1, value.shape[-1]).astype(np.float32)
                found[name] += rows.T @ rows
        yield from found.items()


def _chunks(widths: dict[str, int]) -> Iterator[Sequence[str]]:
    names: list[str] = []
    held = 0
    for name, width in widths.items():
        if names and held + 8 * width**2 > _CHUNK_BYTES:
            yield names
            names, held = [], 0
        names.append(name)
        held += 8 * width**2
    if names:
        yield names
