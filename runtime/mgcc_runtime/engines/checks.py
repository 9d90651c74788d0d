"""Checks of tensors against the contract, the same for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.contract import DType, StageSpec, TensorSpec
from mgcc_runtime.errors import ContractError, StageValueError

_NUMPY = {
    DType.FLOAT32: np.dtype(np.float32),
    DType.INT64: np.dtype(np.int64),
    DType.BOOL: np.dtype(np.bool_),
}


class _HasShape(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


def bind_axes(spec: StageSpec, feeds: Mapping[str, _HasShape]) -> dict[str, int]:
    """Check every input of a stage; returns the lengths of its dynamic axes, T = P + S included."""
    if feeds.keys() != {t.name for t in spec.inputs}:
        missing = [t.name for t in spec.inputs if t.name not in feeds]
        extra = sorted(set(feeds) - {t.name for t in spec.inputs})
        parts = [f"no {', '.join(missing)}"] if missing else []
        parts += [f"unknown {', '.join(extra)}"] if extra else []
        names = ", ".join(t.name for t in spec.inputs)
        raise ContractError(
            f"stage {spec.name} got {' and '.join(parts)}, expected the inputs {names}; pass exactly these"
        )
    lengths: dict[str, int] = {}
    check_tensors(spec.name, "input", spec.inputs, feeds, lengths)
    if "P" in lengths and "S" in lengths:
        lengths["T"] = lengths["P"] + lengths["S"]
    return lengths


def check_tensors(
    stage: str, kind: str, specs: tuple[TensorSpec, ...], values: Mapping[str, _HasShape], lengths: dict[str, int]
) -> None:
    """`check_tensor` for all arrays, and for one of each run of tensors of one form that an engine kept.

    Kept tensors come from a graph whose outputs were held against the contract when it was opened; there are
    dozens of them, and this runs for every token.
    """
    last = None
    for spec in specs:
        value = values[spec.name]
        if isinstance(value, np.ndarray) or spec.shape != last:
            check_tensor(stage, kind, spec, value.shape, value.dtype, lengths)
            last = spec.shape


def check_tensor(
    stage: str, kind: str, spec: TensorSpec, shape: tuple[int, ...], dtype: np.dtype[Any], lengths: dict[str, int]
) -> None:
    """ContractError unless type and shape fit; a dynamic axis that is not in `lengths` yet is entered there."""
    fits = dtype == _NUMPY[spec.dtype] and len(shape) == len(spec.shape)
    if fits:
        for wanted, length in zip(spec.shape, shape, strict=True):
            expected = lengths.setdefault(wanted, length) if isinstance(wanted, str) else wanted
            if length != expected:
                fits = False
                break
    if not fits:
        known = ", ".join(f"{name} = {length}" for name, length in lengths.items())
        raise ContractError(
            f"{kind} {spec.name} of stage {stage} is {dtype} {tuple(shape)}, expected {spec.dtype.value} "
            f"({', '.join(map(str, spec.shape))}){f' with {known}' if known else ''}; "
            "pass a tensor of that form, or rebuild the bundle if it came from one of its stages"
        )


def check_finite(stage: str, name: str, array: NDArray[Any]) -> None:
    """StageValueError if an output holds anything else than finite numbers."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise StageValueError(
            f"stage {stage} gave {bad} values of NaN or infinity of {array.size} in its output {name}, expected finite "
            "numbers; run `mgcc verify`, and rebuild this stage at a higher precision if it fails"
        )
