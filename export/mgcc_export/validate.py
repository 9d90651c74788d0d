"""Accept an exported graph only if it is the stage: names, then axes, then shapes, then values against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mgcc_export.errors import AxisMismatchError, NameMismatchError, ShapeMismatchError, ValueMismatchError
from mgcc_export.targets import TOLERANCES, Precision
from mgcc_export.to_onnx import Positional
from mgcc_runtime.bundle import Tolerance
from mgcc_runtime.contract import DType, StageSpec, TensorSpec
from mgcc_runtime.engines.onnxruntime import cpu_settings

FP32_TOLERANCE = TOLERANCES[Precision.FP32]
#: Nothing of a stage's is so small that this matters, all outputs being of order 1: where a context shows nothing, all
#: presences are about 1e-5, and rounding alone puts them 0.3 % apart.
NOTHING = 1e-6

_ELEMENT_TYPES = {
    DType.FLOAT32: onnx.TensorProto.FLOAT,
    DType.INT64: onnx.TensorProto.INT64,
    DType.BOOL: onnx.TensorProto.BOOL,
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


def validate_stage(
    path: Path,
    module: nn.Module,
    spec: StageSpec,
    cases: Iterable[Lengths],
    make_inputs: Callable[[Lengths], Sequence[Tensor]],
    tolerance: Tolerance = FP32_TOLERANCE,
) -> list[TensorParity]:
    """Check the file at `path` against the contract and against `module` at every case; a ValidationError if it fails.

    `cases` are lengths of all dynamic axes, derived ones (T) included; `make_inputs` gives the inputs in order.
    """
    graph = onnx.load(path, load_external_data=False).graph
    check_names(graph, spec)
    check_axes(graph, spec)
    check_declared_shapes(graph, spec)
    session = ort.InferenceSession(path, cpu_settings(), providers=["CPUExecutionProvider"])
    found: list[TensorParity] = []
    for lengths in cases:
        inputs = list(make_inputs(lengths))
        expected = run_reference(module, inputs)
        feeds = {t.name: value.numpy() for t, value in zip(spec.inputs, inputs, strict=True)}
        actual = session.run([t.name for t in spec.outputs], feeds)
        for tensor, theirs, ours in zip(spec.outputs, expected, actual, strict=True):
            check_result_shape(spec.name, tensor, lengths, ours.shape)
            found.append(check_values(spec.name, tensor.name, lengths, theirs, ours, tolerance))
    return found


def run_reference(module: nn.Module, inputs: Sequence[Tensor]) -> list[Array]:
    """The module's outputs in the contract's order."""
    with torch.inference_mode():
        return [t.detach().cpu().numpy() for t in Positional(module).eval()(*inputs)]


def check_names(graph: onnx.GraphProto, spec: StageSpec) -> None:
    """NameMismatchError unless inputs and outputs have the contract's names, in its order."""
    weights = {w.name for w in graph.initializer}
    for kind, values, tensors in (
        ("inputs", [v for v in graph.input if v.name not in weights], spec.inputs),
        ("outputs", list(graph.output), spec.outputs),
    ):
        found, expected = [v.name for v in values], [t.name for t in tensors]
        if found != expected:
            raise NameMismatchError(
                f"the {kind} of stage {spec.name}'s graph are {', '.join(found) or 'none'}, "
                f"expected {', '.join(expected)} in this order; export it again"
            )


def check_axes(graph: onnx.GraphProto, spec: StageSpec) -> None:
    """AxisMismatchError unless exactly the contract's axes are dynamic, under the contract's names."""
    for value, tensor in _pairs(graph, spec):
        dims = value.type.tensor_type.shape.dim
        if len(dims) != len(tensor.shape):
            raise AxisMismatchError(
                f"{tensor.name} of stage {spec.name} has {len(dims)} axes in the graph, expected {len(tensor.shape)} "
                f"{tensor.shape}; correct the stage's module"
            )
        for place, (dim, expected) in enumerate(zip(dims, tensor.shape, strict=True)):
            found: int | str = dim.dim_param or dim.dim_value
            if isinstance(expected, str) != isinstance(found, str) or (isinstance(expected, str) and found != expected):
                raise AxisMismatchError(
                    f"axis {place} of {tensor.name} of stage {spec.name} is {found!r} in the graph, "
                    f"expected {expected!r}; an axis that became fixed was specialised while tracing"
                )


def check_declared_shapes(graph: onnx.GraphProto, spec: StageSpec, half: Collection[str] = ()) -> None:
    """ShapeMismatchError unless fixed lengths and element types are the contract's; those in `half` are fp16."""
    for value, tensor in _pairs(graph, spec):
        kind = value.type.tensor_type.elem_type
        if kind != (onnx.TensorProto.FLOAT16 if tensor.name in half else _ELEMENT_TYPES[tensor.dtype]):
            raise ShapeMismatchError(
                f"{tensor.name} of stage {spec.name} is {onnx.TensorProto.DataType.Name(kind)} in the graph, "
                f"expected {tensor.dtype.value}; correct the stage's module"
            )
        found = tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
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


def _pairs(graph: onnx.GraphProto, spec: StageSpec) -> list[tuple[onnx.ValueInfoProto, TensorSpec]]:
    weights = {w.name for w in graph.initializer}
    values = [v for v in graph.input if v.name not in weights] + list(graph.output)
    return list(zip(values, (*spec.inputs, *spec.outputs), strict=True))


def _text(lengths: Lengths) -> str:
    return ", ".join(f"{k}={v}" for k, v in lengths.items()) or "fixed shapes"
