"""A checked fp32 stage at a lower precision: the lowest that was asked for and that its outputs bear.

Each step is a function of files, ONNX in and ONNX out, so that another quantiser can stand in (`Quantise`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from mgcc_export.errors import ValueMismatchError
from mgcc_export.fp16 import write_half
from mgcc_export.graph_files import load_graph, save_graph
from mgcc_export.half_emulation import write_emulated
from mgcc_export.ranges import Feeds, RangeScan, scan_ranges
from mgcc_export.reference import ReferenceCase, compare_graph
from mgcc_export.targets import TOLERANCES, Precision, fallbacks
from mgcc_export.validate import TensorParity
from mgcc_export.weight_only import Bits, write_quantised
from mgcc_runtime.contract import StageSpec

#: (fp16 or fp32 graph in, graph out): what a quantiser of another package is, calibrated or not.
Quantise = Callable[[Path, Path], object]

_BITS = {Precision.INT8: Bits.EIGHT, Precision.INT4: Bits.FOUR}


@dataclass(frozen=True)
class Lowered:
    """What became of a stage."""

    precision: Precision
    reasons: tuple[str, ...]  # why it is not the precision that was asked for
    scan: RangeScan
    half_cache: bool
    nodes: dict[str, int]  # element type -> nodes that give it
    parity: list[TensorParity]


def lower_stage(
    source: Path,
    target: Path,
    spec: StageSpec,
    wanted: Precision,
    cases: Sequence[ReferenceCase],
    captured: Iterable[Feeds] = (),
    quantise: Mapping[Precision, Quantise] | None = None,
) -> Lowered:
    """Write the stage of the fp32 graph `source` to `target` at `wanted` precision, or the next that holds.

    `cases` are PyTorch's own inputs and outputs; they and the `captured` inputs are scanned for what fp16 cannot
    hold. `quantise`: for a precision, a quantiser to use instead of rounding weights to nearest.
    """
    scan = scan_ranges(source, [case.feeds for case in cases] + list(captured))
    half = _half_boundary(spec, scan)
    folder, reasons = target.parent, []
    for precision in fallbacks(wanted):
        if not _write(source, target, precision, scan, half, quantise or {}):
            reasons.append(f"{precision}: no weight is of a form that takes it")
            continue
        emulated = folder / f".{target.stem}.emulated.onnx"
        boundary: tuple[str, ...] = half if precision is not Precision.FP32 else ()
        try:
            write_emulated(target, emulated)
            parity = compare_graph(emulated, target, spec, cases, TOLERANCES[precision], boundary)
        except ValueMismatchError as error:
            if precision is Precision.FP32:
                raise
            reasons.append(f"{precision}: {_measured(error)}")
            continue
        finally:
            for path in folder.glob(f"{emulated.name}*"):
                path.unlink()
        return Lowered(precision, tuple(reasons), scan, bool(boundary), node_types(target), parity)
    raise AssertionError("the ladder ends with fp32")


def _write(
    source: Path,
    target: Path,
    precision: Precision,
    scan: RangeScan,
    half: tuple[str, ...],
    quantise: Mapping[Precision, Quantise],
) -> bool:
    """Write the stage at one precision; False if the graph has no weight for it."""
    target.with_name(f"{target.name}.data").unlink(missing_ok=True)
    if precision is Precision.FP32:
        save_graph(load_graph(source), target)
        return True
    if precision is Precision.FP16:
        write_half(source, target, scan.keep, half)
        return True
    between = target.with_name(f".{target.stem}.half.onnx")
    try:
        write_half(source, between, scan.keep, half)
        if precision in quantise:
            quantise[precision](between, target)
            return True
        found = write_quantised(between, target, _BITS[precision])
        return bool(found.four if precision is Precision.INT4 else found.eight)
    finally:
        for path in target.parent.glob(f"{between.name}*"):
            path.unlink()


def _half_boundary(spec: StageSpec, scan: RangeScan) -> tuple[str, ...]:
    """The cache's inputs and outputs: half the memory and traffic in fp16, unless its values are beyond it."""
    names = [t.name for t in (*spec.inputs, *spec.outputs) if t.name.startswith(("past_key_values.", "present."))]
    beyond = any(scan.largest_of(name) > scan.limit for name in names)
    return () if beyond else tuple(names)


def _measured(error: ValueMismatchError) -> str:
    """The part of the error's sentence that says what was found."""
    return str(error).split(";", maxsplit=1)[0]


def node_types(path: Path) -> dict[str, int]:
    """How many nodes of a graph give which element type, 4- and 8-bit weights as types of their own."""
    graph = onnx.load(path, load_external_data=False).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    weights = {w.name: w.data_type for w in graph.initializer}
    found: dict[str, int] = {}
    for node in graph.node:
        kind = weights.get(node.input[0]) if node.op_type == "DequantizeLinear" else kinds.get(node.output[0])
        name = onnx.TensorProto.DataType.Name(kind).lower() if kind else "unknown"
        found[name] = found.get(name, 0) + 1
    return found


def between(case_a: Mapping[str, int], case_b: Mapping[str, int]) -> dict[str, int]:
    """Lengths halfway between two cases: shapes that no profile names are where silent errors hide."""
    found = {name: (case_a[name] + case_b[name]) // 2 for name in case_a}
    if "P" in found:
        found["T"] = found["S"] + found["P"]
    return found
