"""A checked fp32 stage at a lower precision: the one that was asked for, or the next whose outputs are in tolerance.

Each step is a function of files, ONNX in and ONNX out, so that another quantiser can stand in (`Quantise`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mgcc_calibration.graphs.edit import constant
from mgcc_calibration.graphs.storage import load_graph, save_graph
from mgcc_export.errors import ValueMismatchError
from mgcc_export.graphs.reference import ReferenceCase, compare_graph
from mgcc_export.graphs.validate import TensorParity
from mgcc_export.precision.activation_scan import Feeds, RangeScan, scan_ranges
from mgcc_export.precision.emulate_fp16 import write_emulated
from mgcc_export.precision.fp16 import write_half
from mgcc_export.precision.fp32_tails import decision_tails
from mgcc_export.precision.weight_widths import Bits, write_quantised
from mgcc_export.precision.width_search import search_wider
from mgcc_export.targets import calibrated_tolerance, fallbacks, tolerance_of
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.manifest import Tolerance
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.names import CACHE_PREFIXES, weights_file

#: (fp16 graph in, graph with 8-bit weights and activations out): what a quantiser with calibrated ranges is. Returns
#: what it kept in fp16, for the report, and "" for nothing; None where nothing would be left in 8 bits.
Quantise = Callable[[Path, Path], str | None]

_ROUGHLY = Tolerance(cosine=0.9, relative_l2=0.4)
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
    tolerance: Tolerance
    golden: ReferenceCase | None = None  # what a device is to be compared on, if not the fp32 stage's golden data
    wider: tuple[str, ...] = ()  # weights with more bits than the precision says
    remarks: tuple[str, ...] = ()  # what was kept wider so that the precision holds, and why


@dataclass(frozen=True)
class _Attempt:
    """One way to write a stage at a precision."""

    keep: tuple[str, ...]  # nodes in fp32
    wider: tuple[str, ...] = ()
    remark: str = ""
    quantiser: Quantise | None = None  # of weights and activations, instead of rounding weights to nearest


@dataclass(frozen=True)
class Evidence:
    """Inputs that say whether a precision holds; `cases` and `captured` are scanned for what fp16 cannot hold."""

    cases: Sequence[ReferenceCase]  # PyTorch's own inputs and outputs
    captured: Iterable[Feeds] = ()  # inputs of real requests
    #: PyTorch's answers to some of the captured inputs. What a quantiser makes is compared on them, where there are
    #: any: calibrated ranges are for what a stage is really given, and `cases` may be noise.
    real: Sequence[ReferenceCase] = ()


def lower_stage(
    source: Path,
    target: Path,
    spec: StageSpec,
    wanted: Precision,
    evidence: Evidence,
    quantise: Sequence[Quantise] = (),
) -> Lowered:
    """Write the stage of the fp32 graph `source` to `target` at `wanted` precision, or the next that holds.

    `quantise`: for int8, quantisers to try before rounding weights to nearest, the boldest first.
    """
    cases, real = evidence.cases, evidence.real
    scan = scan_ranges(source, [case.feeds for case in cases] + list(evidence.captured))
    work = _Work(source, target, spec, cases, scan, _half_boundary(spec, scan), quantise, real)
    reasons: list[str] = []
    for precision in fallbacks(wanted):
        first = ""
        for attempt in work.attempts(precision):
            remark = work.write(precision, attempt)
            if remark is None:
                if attempt.quantiser:
                    continue
                first = first or f"{precision}: no weight is of a form that takes it"
                break
            limit = work.tolerance(precision, attempt)
            try:
                parity, boundary = work.compare(precision, limit, attempt)
            except ValueMismatchError as error:
                if precision is Precision.FP32:
                    raise
                first = first or f"{precision}: {_measured(error)}"
                continue
            remarks = (remark,) if remark else ()
            nodes, wider = node_types(target), attempt.wider
            golden = real[0] if attempt.quantiser and real else None
            return Lowered(
                precision, tuple(reasons), scan, bool(boundary), nodes, parity, limit, golden, wider, remarks
            )  # fmt: skip
        reasons.append(first)
    raise AssertionError("the ladder ends with fp32")


@dataclass(frozen=True)
class _Work:
    """One stage being lowered."""

    source: Path
    target: Path
    spec: StageSpec
    cases: Sequence[ReferenceCase]
    scan: RangeScan
    half: tuple[str, ...]  # inputs and outputs in fp16
    quantise: Sequence[Quantise]
    real: Sequence[ReferenceCase]

    def attempts(self, precision: Precision) -> Iterator[_Attempt]:
        """Ways to write the stage: the plain one first, then those that keep some weights or nodes wider."""
        keep = self.scan.keep
        alone = ""
        if precision is Precision.INT8 and self.quantise:
            for quantiser in self.quantise:
                yield _Attempt(keep, quantiser=quantiser)
            alone = f"{precision} weights alone: with 8-bit activations too it misses the tolerance"
        yield _Attempt(keep, remark=alone)
        if precision is Precision.FP16:
            for tail in decision_tails(self.source):
                remark = f"{len(tail)} nodes that lead to a decision in fp32: rounded, they decide otherwise"
                yield _Attempt((*keep, *tail), (), remark)
        elif precision in _BITS:
            with self._half_graph(keep) as between:
                limit = tolerance_of(self.spec.name, precision)
                found = search_wider(between, _BITS[precision], self.spec, self.cases, limit, self.half)
            if found.wider:
                width = "8 bits" if precision is Precision.INT4 else "fp16"
                remark = (
                    f"{len(found.wider)} of {found.candidates} weights ({found.share:.1%} of their bytes) in {width}: "
                    "rounded as well, they would cost most and miss the tolerance"
                )
                yield _Attempt(keep, found.wider, "; ".join(filter(None, (alone, remark))))

    def tolerance(self, precision: Precision, attempt: _Attempt) -> Tolerance:
        """The tolerance that an attempt is compared within."""
        return calibrated_tolerance(self.spec.name) if attempt.quantiser else tolerance_of(self.spec.name, precision)

    def write(self, precision: Precision, attempt: _Attempt) -> str | None:
        """Write the stage and return a remark for the report; None if the graph has no weight for the precision."""
        self.target.with_name(weights_file(self.target.name)).unlink(missing_ok=True)
        if precision is Precision.FP32:
            save_graph(load_graph(self.source), self.target)
            return attempt.remark
        if precision is Precision.FP16:
            write_half(self.source, self.target, attempt.keep, self.half)
            return attempt.remark
        with self._half_graph(attempt.keep) as between:
            if attempt.quantiser:
                return attempt.quantiser(between, self.target)
            found = write_quantised(between, self.target, _BITS[precision], attempt.wider)
            return attempt.remark if (found.four if precision is Precision.INT4 else found.eight) else None

    def compare(
        self, precision: Precision, limit: Tolerance, attempt: _Attempt
    ) -> tuple[list[TensorParity], tuple[str, ...]]:
        """Parity with PyTorch, every fp16 result rounded, and the names of fp16 inputs and outputs.

        ValueMismatchError if a result is out of tolerance.
        """
        emulated = self.target.with_name(f".{self.target.stem}.emulated.onnx")
        boundary = self.half if precision is not Precision.FP32 else ()
        try:
            write_emulated(self.target, emulated)
            compared = self.cases
            if attempt.quantiser and self.real:
                # at all lengths, and on noise: no NaN, and nothing upside down
                compare_graph(emulated, self.target, self.spec, self.cases, _ROUGHLY, boundary)
                compared = self.real
            return compare_graph(emulated, self.target, self.spec, compared, limit, boundary), boundary
        finally:
            for path in emulated.parent.glob(f"{emulated.name}*"):
                path.unlink()

    @contextmanager
    def _half_graph(self, keep: Sequence[str]) -> Iterator[Path]:
        between = self.target.with_name(f".{self.target.stem}.half.onnx")
        try:
            write_half(self.source, between, keep, self.half)
            yield between
        finally:
            for path in between.parent.glob(f"{between.name}*"):
                path.unlink()


def _half_boundary(spec: StageSpec, scan: RangeScan) -> tuple[str, ...]:
    """The cache's inputs and outputs: half the memory and traffic in fp16, unless its values are beyond it."""
    names = [t.name for t in (*spec.inputs, *spec.outputs) if t.name.startswith(CACHE_PREFIXES)]
    beyond = any(scan.largest_of(name) > scan.limit for name in names)
    return () if beyond else tuple(names)


def _measured(error: ValueMismatchError) -> str:
    """The part of the error's sentence that says what was found."""
    return str(error).split(";", maxsplit=1)[0]


def node_types(path: Path) -> dict[str, int]:
    """How many nodes of a graph give which element type, 4- and 8-bit weights as types of their own."""
    found: dict[str, int] = {}
    for types in types_by_operator(path).values():
        for kind, count in types.items():
            found[kind] = found.get(kind, 0) + count
    return found


def types_by_operator(path: Path) -> dict[str, dict[str, int]]:
    """Operator -> element type of its first result -> how many nodes; DequantizeLinear by the type of its weight."""
    found: dict[str, dict[str, int]] = {}
    for node in load_graph(path).graph:
        held = constant(node.inputs[0]) if node.op_type == "DequantizeLinear" else node.outputs[0]
        name = str(held.dtype).lower() if held is not None and held.dtype else "unknown"
        of_operator = found.setdefault(node.op_type, {})
        of_operator[name] = of_operator.get(name, 0) + 1
    return found


def between(case_a: Mapping[str, int], case_b: Mapping[str, int]) -> dict[str, int]:
    """Lengths halfway between two cases: a graph may be wrong at lengths that no profile names."""
    found = {name: (case_a[name] + case_b[name]) // 2 for name in case_a}
    if "P" in found:
        found["T"] = found["S"] + found["P"]
    return found
