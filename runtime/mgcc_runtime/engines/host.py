"""The host's processor by numpy: for the solver's step, a handful of products.

Behind a UNet's step a call of ONNX Runtime takes 0.33 ms for it, this one 0.11 (story, `auto`, two cores), most of it
for the call. The stage's graph stays in the bundle, for every other engine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import Array, EngineOptions, Feed, Outputs, host_array
from mgcc_runtime.errors import EngineError

STAGE = "solver"


class HostTensor:
    """A tensor in the host's memory."""

    __slots__ = ("_array",)

    def __init__(self, array: Array) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array.dtype

    def numpy(self) -> Array:
        return self._array.copy()

    def shared(self) -> Array:
        """The memory itself, for reading alone."""
        return self._array


def readable(feed: Feed) -> Array:
    """Values for reading alone, without a copy where they are in the host's memory."""
    return feed.shared() if isinstance(feed, HostTensor) else host_array(feed)


class HostSession:
    """The solver's step."""

    providers = ("numpy on the CPU",)

    def __init__(self, spec: StageSpec) -> None:
        *self._terms, self._coefficients = (t.name for t in spec.inputs)
        self._latents, self._finite = (t.name for t in spec.outputs)

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> Outputs:
        coefficients = readable(feeds[self._coefficients])
        with np.errstate(over="ignore", invalid="ignore"):  # `finite` tells it
            found = coefficients[0] * readable(feeds[self._terms[0]])
            for coefficient, name in zip(coefficients[1:], self._terms[1:], strict=True):
                found += coefficient * readable(feeds[name])
        outputs = {self._latents: found, self._finite: np.isfinite(found).all().reshape(1)}
        kept = {name: HostTensor(outputs.pop(name)) for name in keep}
        return Outputs(outputs, kept)

    def close(self) -> None:
        pass  # nothing is held


def open_session(path: Path, spec: StageSpec, options: EngineOptions) -> HostSession:
    """The stage by numpy; EngineError for any but the solver. Its graph in `path` is not read."""
    if spec.name != STAGE:
        raise EngineError(f"stage {spec.name} of {path} is no stage for the engine host, which has {STAGE} alone")
    return HostSession(spec)
