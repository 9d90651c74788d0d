"""Inputs and outputs as a TensorRT engine has them, and which of its profiles takes which shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgcc_runtime.contract import StageSpec, TensorSpec
from mgcc_runtime.engines.tensorrt.device_memory import NUMPY_TYPES
from mgcc_runtime.engines.tensorrt.record import EngineRecord, Shape


@dataclass(frozen=True)
class Binding:
    """An input or output as the engine has it."""

    name: str
    stored: np.dtype[Any]  # in the engine
    dtype: np.dtype[Any]  # in the contract


def binding(record: EngineRecord, spec: StageSpec, name: str) -> Binding:
    """The tensor of this name with its type in the engine and in the contract."""
    stored = {t.name: t.dtype for t in (*record.inputs, *record.outputs)}
    wanted = {t.name: t.dtype for t in (*spec.inputs, *spec.outputs)}
    return Binding(name, NUMPY_TYPES[stored[name]], np.dtype(wanted[name].value))


def shape_at(tensor: TensorSpec, lengths: Mapping[str, int]) -> Shape:
    """The tensor's shape with these lengths of its dynamic axes."""
    return tuple(lengths[n] if isinstance(n, str) else n for n in tensor.shape)


def profile_for(record: EngineRecord, shapes: Mapping[str, Shape]) -> int | None:
    """The narrowest profile that holds these shapes by name, 0 for an engine without profiles; None if none does."""
    profiles = record.profiles
    if not profiles:
        return 0
    fitting = [i for i, p in enumerate(profiles) if all(p.holds(name, shape) for name, shape in shapes.items())]
    return min(fitting, key=lambda i: profiles[i].spread) if fitting else None
