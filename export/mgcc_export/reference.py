"""PyTorch's answers at some lengths, computed once and held against every precision that is tried."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from torch import Tensor, nn

from mgcc_export.validate import (
    TensorParity,
    check_axes,
    check_declared_shapes,
    check_names,
    check_result_shape,
    check_values,
    run_reference,
)  # fmt: skip
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines.onnxruntime import cpu_settings
from mgcc_runtime.manifest import Tolerance

Array = NDArray[Any]


@dataclass(frozen=True)
class ReferenceCase:
    """Inputs and PyTorch's fp32 outputs of a stage, by name, at these axis lengths."""

    lengths: Mapping[str, int]
    feeds: Mapping[str, Array]
    outputs: Mapping[str, Array]


def reference_cases(
    module: nn.Module,
    spec: StageSpec,
    lengths: Iterable[Mapping[str, int]],
    make_inputs: Callable[[Mapping[str, int]], Sequence[Tensor]],
) -> list[ReferenceCase]:
    """Run the module at each of `lengths`."""
    found = []
    for one in lengths:
        inputs = list(make_inputs(one))
        feeds = {t.name: v.numpy() for t, v in zip(spec.inputs, inputs, strict=True)}
        outputs = {t.name: v for t, v in zip(spec.outputs, run_reference(module, inputs), strict=True)}
        found.append(ReferenceCase(dict(one), feeds, outputs))
    return found


def compare_graph(
    runnable: Path,
    shipped: Path,
    spec: StageSpec,
    cases: Sequence[ReferenceCase],
    tolerance: Tolerance,
    half: Collection[str] = (),
) -> list[TensorParity]:
    """Hold `shipped` against the contract and the values of `runnable`, its emulation, against the cases.

    `half` names the inputs and outputs that are fp16. A ValidationError says what is wrong.
    """
    graph = onnx.load(shipped, load_external_data=False).graph
    check_names(graph, spec)
    check_axes(graph, spec)
    check_declared_shapes(graph, spec, half)
    settings = cpu_settings()
    session = ort.InferenceSession(runnable, settings, providers=["CPUExecutionProvider"])
    found: list[TensorParity] = []
    for case in cases:
        feeds = {n: v.astype(np.float16) if n in half else v for n, v in case.feeds.items()}
        actual = session.run([t.name for t in spec.outputs], feeds)
        for tensor, value in zip(spec.outputs, actual, strict=True):
            check_result_shape(spec.name, tensor, case.lengths, value.shape)
            expected = case.outputs[tensor.name]
            found.append(check_values(spec.name, tensor.name, case.lengths, expected, value, tolerance))
    return found
