"""One stage's module to one ONNX file, with the contract's names, order and dynamic axes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from mgcc_calibration.graphs.storage import save_graph, weight_bytes
from mgcc_export.errors import ExportError
from mgcc_runtime.contract import Axis, StageSpec, TensorSpec

OPSET = 18
#: torch.export takes lengths 0 and 1 for constants, so stages are traced at lengths from 2 up. They are
#: different primes, so that no two axes, nor an axis and a sum, happen to be equal and get merged.
TRACE_LENGTHS = (5, 3, 7, 11, 13)


@dataclass(frozen=True)
class ExportedGraph:
    """What `export_stage` wrote: the graph's file first, then the file of its weights, if that is another."""

    files: tuple[Path, ...]
    nodes: int
    weight_bytes: int


class Positional(nn.Module):
    """The stage with a plain signature: tensors in the contract's order, a tuple of tensors out."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = self.module(*tensors)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def trace_lengths(spec: StageSpec, axes: Mapping[str, Axis]) -> dict[str, int]:
    """A length for each dynamic axis of the stage's inputs, at which it can be traced for all lengths."""
    names = dict.fromkeys(e for t in spec.inputs for e in t.shape if isinstance(e, str))
    lengths: dict[str, int] = {}
    for name, length in zip(names, TRACE_LENGTHS, strict=False):
        lengths[name] = min(length, axes[name].maximum)
        if lengths[name] < 2:
            raise ExportError(
                f"axis {name} of stage {spec.name} is at most {axes[name].maximum} long, expected 2 or more "
                "for an axis to be dynamic; make it a fixed length in the contract"
            )
    if _has_sum(lengths):
        lengths["T"] = lengths["S"] + lengths["P"]
    return lengths


def _has_sum(axes: Collection[str]) -> bool:
    """Whether T = P + S is an axis of the inputs, as it is of one block's mask: torch must not take it for free."""
    return {"S", "P", "T"} <= set(axes)


def export_stage(
    module: nn.Module,
    spec: StageSpec,
    axes: Mapping[str, Axis],
    example: Sequence[Tensor],
    path: Path,
    external_data_bytes: int | None = None,
) -> ExportedGraph:
    """Export `module`, traced with `example` (see `trace_lengths`), to `path`; ExportError if torch cannot."""
    stage = Positional(module).eval()
    used = dict.fromkeys(e for t in spec.inputs for e in t.shape if isinstance(e, str))
    dims: dict[str, Any] = {n: torch.export.Dim(n, min=axes[n].minimum, max=axes[n].maximum) for n in used}
    if _has_sum(used):
        dims["T"] = torch.export.Dim.AUTO
    shapes = tuple({i: dims[e] for i, e in enumerate(t.shape) if isinstance(e, str)} for t in spec.inputs)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                stage,
                tuple(example),
                dynamo=True,
                opset_version=OPSET,
                input_names=[t.name for t in spec.inputs],
                output_names=[t.name for t in spec.outputs],
                dynamic_shapes=(shapes,),
                verbose=False,
            )
        except Exception as error:  # torch raises its own and many built-in types; all mean "cannot be exported"
            raise ExportError(f"stage {spec.name} cannot be exported: {_first_cause(error)}") from error
    assert program is not None
    model = program.model
    if _has_sum(used):
        for value, tensor in zip(model.graph.inputs, spec.inputs, strict=True):
            value.shape = _named_shape(value.shape, tensor, axes)
    _name_output_axes(model, spec, axes)
    _strip(model)
    files = save_graph(model, path, external_data_bytes)
    return ExportedGraph(files, len(model.graph), weight_bytes(model))


def _name_output_axes(model: ir.Model, spec: StageSpec, axes: Mapping[str, Axis]) -> None:
    """Give derived lengths of the outputs ("P + S") the contract's name (T).

    A length that torch took for a constant, or that already is one of the contract's axes, is left as it is:
    `validate.check_axes` must see a wrong one.
    """
    for value, tensor in zip(model.graph.outputs, spec.outputs, strict=False):
        value.shape = _named_shape(value.shape, tensor, axes)


def _named_shape(shape: ir.Shape | None, tensor: TensorSpec, axes: Mapping[str, Axis]) -> ir.Shape | None:
    if shape is None or len(shape) != len(tensor.shape):
        return shape
    named: list[int | str | None] = []
    for found, expected in zip(shape, tensor.shape, strict=True):
        length = found if isinstance(found, int) else found.value
        derived = isinstance(length, str) and length not in axes
        named.append(expected if derived and isinstance(expected, str) else length)
    return ir.Shape(named)


def _strip(model: ir.Model) -> None:
    """Remove stack traces and the like: they hold paths of this machine and a fifth of a small file."""
    model.metadata_props.clear()
    model.doc_string = None
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        graph.doc_string = None
        for node in ir.traversal.RecursiveGraphIterator(graph):
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()


def _first_cause(error: BaseException) -> str:
    """The innermost exception's first line: torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's progress prints and its loggers' notes on absent packages out of the build's output."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
