"""PyTorch's answers at some lengths, and a graph of any precision held against them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from torch import Tensor, nn

from mgcc_export.graphs.validate import TensorParity, check_contract, check_result_shape, check_values, run_reference
from mgcc_runtime.bundle.manifest import Tolerance
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines.onnxruntime.cpu import cpu_settings

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
) -> Iterator[ReferenceCase]:
    """Run the module at each of `lengths`, all dynamic axes' and the derived ones' (T), as the case is asked for."""
    for one in lengths:
        inputs = list(make_inputs(one))
        feeds = {t.name: v.numpy() for t, v in zip(spec.inputs, inputs, strict=True)}
        outputs = {t.name: v for t, v in zip(spec.outputs, run_reference(module, inputs), strict=True)}
        yield ReferenceCase(dict(one), feeds, outputs)


def compare_graph(
    runnable: Path,
    shipped: Path,
    spec: StageSpec,
    cases: Iterable[ReferenceCase],
    tolerance: Tolerance,
    half: Collection[str] = (),
) -> list[TensorParity]:
    """Hold `shipped` against the contract and the values of `runnable`, its emulation, against the cases.

    `half` names the inputs and outputs that are fp16. A ValidationError says what is wrong.
    """
    check_contract(shipped, spec, half)
    session = ort.InferenceSession(runnable, cpu_settings(), providers=["CPUExecutionProvider"])
    found: list[TensorParity] = []
    for case in cases:
        feeds = {n: v.astype(np.float16) if n in half else v for n, v in case.feeds.items()}
        actual = session.run([t.name for t in spec.outputs], feeds)
        for tensor, value in zip(spec.outputs, actual, strict=True):
            check_result_shape(spec.name, tensor, case.lengths, value.shape)
            expected = case.outputs[tensor.name]
            found.append(check_values(spec.name, tensor.name, case.lengths, expected, value, tolerance))
    return found
