"""What can be built: targets, precisions, and which of them this version has."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mgcc_export.errors import UnavailableError


class Target(enum.StrEnum):
    CPU = "cpu"
    RTX = "rtx"
    JETSON = "jetson"
    ORT_GPU = "ort-gpu"


class Precision(enum.StrEnum):
    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


@dataclass(frozen=True)
class Recipe:
    """How a target's stages are built: the precision in effect and the engine that will run them."""

    target: Target
    precision: Precision
    engine: str
    note: str = ""


_BUILT = {Target.CPU: (Precision.FP32,)}


def choose_recipe(target: Target, precision: Precision) -> Recipe:
    """The recipe of a target and precision; UnavailableError names what there is instead."""
    if target not in _BUILT:
        raise UnavailableError(
            f"target {target} is not built by this version; available: {available()}; use --target cpu"
        )
    if precision is Precision.AUTO:
        return Recipe(target, Precision.FP32, "onnxruntime", "precision auto is fp32 for every stage in this version")
    if precision not in _BUILT[target]:
        raise UnavailableError(
            f"precision {precision} is not built for target {target} by this version; available: {available()}; "
            f"use --precision {_BUILT[target][0]}"
        )
    return Recipe(target, precision, "onnxruntime")


def available() -> str:
    """All that can be built, in words."""
    return ", ".join(f"{target} with {' or '.join(precisions)}" for target, precisions in _BUILT.items())
