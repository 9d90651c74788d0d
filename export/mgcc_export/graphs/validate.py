"""Accept an exported graph only if it is the stage: names, then axes, then shapes, then values against PyTorch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mgcc_calibration.graphs.storage import load_graph
from mgcc_export.errors import AxisMismatchError, NameMismatchError, ShapeMismatchError, ValueMismatchError
from mgcc_export.graphs.to_onnx import Positional
from mgcc_export.targets import TOLERANCES
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.folder import Tolerance
from mgcc_runtime.contract import DType, StageSpec, TensorSpec

FP32_TOLERANCE = TOLERANCES[Precision.FP32]
#: Nothing of a stage's is so small that this matters, all outputs being of order 1: where a context shows nothing, all
#: presences are about 1e-5, and rounding alone puts them 0.3 % apart.
NOTHING = 1e-6

_ELEMENT_TYPES = {
    DType.FLOAT32: ir.DataType.FLOAT,
    DType.INT64: ir.DataType.INT64,
    DType.BOOL: ir.DataType.BOOL,
}
Lengths = Mapping[str, int]
Array = NDArray[np.generic]


@dataclass(frozen=True)
class TensorParity:
    """How far one output is from PyTorch's at one set of axis lengths."""

    tensor: str
    lengths: dict[str, int]
    max_difference: float
    cosine: float
    relative_l2: float


def run_reference(module: nn.Module, inputs: Sequence[Tensor]) -> list[Array]:
    """The module's outputs in the contract's order."""
    with torch.inference_mode():
        return [t.detach().cpu().numpy() for t in Positional(module).eval()(*inputs)]


def check_contract(path: Path, spec: StageSpec, half: Collection[str] = ()) -> None:
    """A ValidationError unless names, axes, shapes and types are the contract's; those in `half` are fp16."""
    graph = load_graph(path).graph
    _check_names(graph, spec)
    _check_axes(graph, spec)
    _check_declared_shapes(graph, spec, half)


def _check_names(graph: ir.Graph, spec: StageSpec) -> None:
    """NameMismatchError unless inputs and outputs have the contract's names, in its order."""
    for kind, values, tensors in (("inputs", _inputs(graph), spec.inputs), ("outputs", graph.outputs, spec.outputs)):
        found, expected = [str(v.name) for v in values], [t.name for t in tensors]
        if found != expected:
            raise NameMismatchError(
                f"the {kind} of stage {spec.name}'s graph are {', '.join(found) or 'none'}, "
                f"expected {', '.join(expected)} in this order; export it again"
            )


def _check_axes(graph: ir.Graph, spec: StageSpec) -> None:
    """AxisMismatchError unless exactly the contract's axes are dynamic, under the contract's names."""
    for value, tensor in _pairs(graph, spec):
        lengths = _lengths(value)
        if len(lengths) != len(tensor.shape):
            raise AxisMismatchError(
                f"{tensor.name} of stage {spec.name} has {len(lengths)} axes in the graph, expected "
                f"{len(tensor.shape)} {tensor.shape}; correct the stage's module"
            )
        for place, (found, expected) in enumerate(zip(lengths, tensor.shape, strict=True)):
            if isinstance(expected, str) != isinstance(found, str) or (isinstance(expected, str) and found != expected):
                raise AxisMismatchError(
                    f"axis {place} of {tensor.name} of stage {spec.name} is {found!r} in the graph, "
                    f"expected {expected!r}; an axis that became fixed was specialised while tracing"
                )


def _check_declared_shapes(graph: ir.Graph, spec: StageSpec, half: Collection[str] = ()) -> None:
    """ShapeMismatchError unless fixed lengths and element types are the contract's; those in `half` are fp16."""
    for value, tensor in _pairs(graph, spec):
        if value.dtype is not (ir.DataType.FLOAT16 if tensor.name in half else _ELEMENT_TYPES[tensor.dtype]):
            raise ShapeMismatchError(
                f"{tensor.name} of stage {spec.name} is {value.dtype} in the graph, "
                f"expected {tensor.dtype.value}; correct the stage's module"
            )
        found = _lengths(value)
        if found != tensor.shape:
            raise ShapeMismatchError(
                f"{tensor.name} of stage {spec.name} is {found} in the graph, expected {tensor.shape}; "
                "correct the stage's module"
            )


def check_result_shape(stage: str, tensor: TensorSpec, lengths: Lengths, shape: Sequence[int]) -> None:
    """ShapeMismatchError unless a result at these lengths has the shape that the contract gives."""
    expected = tuple(lengths[e] if isinstance(e, str) else e for e in tensor.shape)
    if tuple(shape) != expected:
        raise ShapeMismatchError(
            f"{tensor.name} of stage {stage} came out as {tuple(shape)} at {_text(lengths)}, expected {expected}; "
            "a length was specialised while tracing"
        )


def check_values(
    stage: str, name: str, lengths: Lengths, expected: Array, actual: Array, tolerance: Tolerance
) -> TensorParity:
    """Compare one result with PyTorch's; ValueMismatchError with the largest difference if it is out of tolerance."""
    theirs, ours = expected.astype(np.float64).ravel(), actual.astype(np.float64).ravel()
    if not np.isfinite(ours).all():
        raise ValueMismatchError(
            f"{name} of stage {stage} holds NaN or infinity at {_text(lengths)}, expected finite values"
        )
    difference = float(np.abs(ours - theirs).max(initial=0.0))
    norms = float(np.linalg.norm(theirs)), float(np.linalg.norm(ours))
    relative = float(np.linalg.norm(ours - theirs)) / max(norms[0], 1e-12)
    cosine = float(theirs @ ours) / (norms[0] * norms[1]) if min(norms) > 0 else float(norms[0] == norms[1])
    if difference > NOTHING and (cosine < tolerance.cosine or relative > tolerance.relative_l2):
        raise ValueMismatchError(
            f"{name} of stage {stage} differs from PyTorch at {_text(lengths)}: max difference {difference:.3g}, "
            f"cosine {cosine:.7f} (at least {tolerance.cosine}), relative L2 {relative:.3g} "
            f"(at most {tolerance.relative_l2}); the exported graph is not the reference's"
        )
    return TensorParity(name, dict(lengths), difference, cosine, relative)


def _inputs(graph: ir.Graph) -> list[ir.Value]:
    """Those that are no weights."""
    return [value for value in graph.inputs if not value.is_initializer()]


def _pairs(graph: ir.Graph, spec: StageSpec) -> list[tuple[ir.Value, TensorSpec]]:
    return list(zip([*_inputs(graph), *graph.outputs], (*spec.inputs, *spec.outputs), strict=True))


def _lengths(value: ir.Value) -> tuple[int | str, ...]:
    """Of each axis its length, or its name; 0 where the graph states neither."""
    shape = value.shape if value.shape is not None else ()
    return tuple(axis if isinstance(axis, int) else axis.value or 0 for axis in shape)


def _text(lengths: Lengths) -> str:
    return ", ".join(f"{k}={v}" for k, v in lengths.items()) or "fixed shapes"
