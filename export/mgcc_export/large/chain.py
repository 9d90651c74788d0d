"""A large language model, one segment at a time: exported, checked, lowered, compared; a few blocks' memory at most.

The reference's values and the lowered graph's pass from segment to segment side by side, so what is compared with
PyTorch at a block's cache and at the end is what the whole graph would give, its rounding errors added up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from mgcc_calibration.graphs.storage import load_graph, save_graph, weight_bytes
from mgcc_export.graphs.reference import ReferenceCase, compare_graph
from mgcc_export.graphs.to_onnx import export_stage, trace_lengths
from mgcc_export.graphs.validate import (
    FP32_TOLERANCE,
    TensorParity,
    check_contract,
    check_values,
    run_reference,
)
from mgcc_export.large.segments import LlmSegments
from mgcc_export.precision.activation_scan import RangeScan, scan_ranges
from mgcc_export.precision.emulate_fp16 import write_emulated
from mgcc_export.precision.fp16 import write_half
from mgcc_export.precision.ladder import between, node_types
from mgcc_export.precision.report import LowReport
from mgcc_export.precision.weight_widths import Bits, write_quantised
from mgcc_export.stages.cache import BuiltStage
from mgcc_export.stages.stage import GOLDEN_LENGTHS, Stage
from mgcc_export.targets import TOLERANCES
from mgcc_ref.precision import Precision
from mgcc_runtime.contract import DType, StageSpec
from mgcc_runtime.engines.onnxruntime.cpu import cpu_settings
from mgcc_runtime.measure.golden import StageGolden
from mgcc_runtime.names import CACHE_PREFIXES, PAST_PREFIX, PRESENT_PREFIX, graph_file

#: Values are compared up to this many positions: every block's weights are read for each case, and a block at 512
#: positions says nothing that it does not say at 64.
VALUE_POSITIONS = 64
STATE = "state.npz"
_BITS = {Precision.INT8: Bits.EIGHT, Precision.INT4: Bits.FOUR}

Array = NDArray[Any]
Values = dict[str, Array]


class CacheTooLargeError(Exception):
    """Keys or values of the cache come near fp16's end, so that all of the cache has to be fp32."""


@dataclass(frozen=True)
class Flow:
    """What reaches a segment in one case: the reference's values and the lowered graph's, by name."""

    lengths: Mapping[str, int]
    reference: Values
    lowered: Values


@dataclass(frozen=True)
class ChainState:
    """What reaches a segment: every case, and which of the values between segments are fp16."""

    flows: tuple[Flow, ...]
    half: frozenset[str]

    def save(self, path: Path, golden: Values) -> None:
        """Write it, and what this segment gives to the golden data."""
        arrays: Values = {"half": np.array(sorted(self.half), dtype=np.str_)}
        arrays |= {f"golden.{name}": value for name, value in golden.items()}
        for i, flow in enumerate(self.flows):
            arrays |= {f"{i}.ref.{name}": value for name, value in flow.reference.items()}
            arrays |= {f"{i}.low.{name}": value for name, value in flow.lowered.items()}
        np.savez(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> tuple[ChainState, Values]:
        """Read what `save` wrote: the state, and the golden data."""
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
        flows = []
        for i, lengths in enumerate(chain_lengths()):
            sides = [{k[len(p) :]: v for k, v in found.items() if k.startswith(p)} for p in (f"{i}.ref.", f"{i}.low.")]
            flows.append(Flow(lengths, *sides))
        golden = {k[7:]: v for k, v in found.items() if k.startswith("golden.")}
        return cls(tuple(flows), frozenset(found["half"].tolist())), golden


def chain_lengths() -> list[dict[str, int]]:
    """Lengths that are compared. The first leaves the cache that those with a past begin with; the last is golden."""
    longest, usual = VALUE_POSITIONS, VALUE_POSITIONS // 2
    pairs = [(longest, 0), (1, 0), (1, 1), (usual, usual), (1, longest - 1)]
    cases = [{"S": s, "P": p, "T": s + p} for s, p in pairs]
    return [*cases, between(cases[3], cases[4]), {n: GOLDEN_LENGTHS[n] for n in "SPT"}]


def first_state(segments: LlmSegments, seed: int = 0) -> ChainState:
    """Embeddings of random tokens."""
    table = segments.llm.token_table()
    generator = torch.Generator().manual_seed(seed)
    flows = []
    for lengths in chain_lengths():
        ids = torch.randint(0, len(table), (1, lengths["S"]), generator=generator)
        values = {"inputs_embeds": table[ids].numpy()}
        flows.append(Flow(lengths, values, dict(values)))
    return ChainState(tuple(flows), frozenset())


@dataclass(frozen=True)
class SegmentPrecision:
    """How all segments of a language model are stored."""

    precision: Precision
    half_cache: bool  # the cache in fp16, too

    def __str__(self) -> str:
        return f"{self.precision} {self.half_cache}"


def lower_segment(
    segments: LlmSegments,
    number: int,
    state: ChainState,
    wanted: SegmentPrecision,
    folder: Path,
    say: Callable[[str], None],
) -> BuiltStage:
    """Make one segment in `folder`: its graph, and the state that the next one starts from.

    ValueMismatchError if a result of the contract is out of the precision's tolerance; CacheTooLargeError.
    """
    started, precision = time.monotonic(), wanted.precision
    stage = segments.stage(number)
    spec, graph = stage.spec, folder / graph_file(stage.name)
    say("exporting")
    cases = _reference(segments, stage, state)
    source = _export(stage, graph.with_name(f".{stage.name}.fp32.onnx"))
    del stage
    exported = time.monotonic()
    say(f"comparing with PyTorch and lowering to {precision}" if precision is not Precision.FP32 else "comparing")
    compare_graph(source, source, spec, cases, FP32_TOLERANCE)
    scan = scan_ranges(source, [case.feeds for case in cases]) if precision is not Precision.FP32 else None
    half = _half(spec, scan, state.half, half_cache=wanted.half_cache)
    _write(source, graph, precision, scan, half)
    check_contract(graph, spec, half)
    lowered = _run_lowered(graph, spec, cases, state, half)
    parity = _compare(segments, spec, cases, lowered, precision)
    flows = _next_flows(segments, number, state, cases, lowered)
    ChainState(flows, state.half | half).save(folder / STATE, _golden(segments, number, cases[-1]))
    report = _report(precision, scan, node_types(graph), half_cache=wanted.half_cache and scan is not None)
    model = load_graph(graph)
    return BuiltStage(
        folder=folder,
        files={},
        nodes=len(model.graph),
        weight_bytes=weight_bytes(model),
        export_s=round(exported - started, 2),
        validate_s=round(time.monotonic() - exported, 2),
        parity=parity,
        lowered=report,
    )


def _reference(segments: LlmSegments, stage: Stage, state: ChainState) -> list[ReferenceCase]:
    """PyTorch's answers of this segment in every case; the first one's cache is the past of the others."""
    found: list[ReferenceCase] = []
    d = {t.name: t for t in segments.spec.inputs}
    for flow in state.flows:
        feeds: Values = {}
        for tensor in stage.spec.inputs:
            if tensor.name not in d or tensor.name == "inputs_embeds":
                feeds[tensor.name] = flow.reference[tensor.name]
            else:
                feeds[tensor.name] = _past(tensor.name, tensor.shape, flow.lengths["P"], found)
        inputs = [torch.from_numpy(feeds[t.name]) for t in stage.spec.inputs]
        outputs = run_reference(stage.module, inputs)
        found.append(ReferenceCase(flow.lengths, feeds, dict(zip(_names(stage.spec.outputs), outputs, strict=True))))
    return found


def _past(name: str, shape: tuple[int | str, ...], length: int, done: list[ReferenceCase]) -> Array:
    present = name.replace(PAST_PREFIX, PRESENT_PREFIX)
    if length and present in done[0].outputs:
        return np.ascontiguousarray(done[0].outputs[present][:, :, :length])
    return np.zeros(
        [length if isinstance(n, str) else n for n in shape], np.float32
    )  # the entry reads its length alone


def _export(stage: Stage, path: Path) -> Path:
    lengths = {"S": 5, "P": 3, "T": 8, **trace_lengths(stage.spec, stage.axes)}
    generator = torch.Generator().manual_seed(0)
    example = []
    for tensor in stage.spec.inputs:
        shape = [lengths[n] if isinstance(n, str) else n for n in tensor.shape]
        mask = tensor.dtype is DType.BOOL
        example.append(torch.ones(shape, dtype=torch.bool) if mask else torch.randn(shape, generator=generator))
    return export_stage(stage.module, stage.spec, stage.axes, example, path, external_data_bytes=0).files[0]


def _half(spec: StageSpec, scan: RangeScan | None, before: frozenset[str], *, half_cache: bool) -> frozenset[str]:
    """Inputs and outputs of the segment in fp16: the cache, and the residual stream while it is within the range."""
    if scan is None:
        return frozenset()
    cache = {t.name for t in (*spec.inputs, *spec.outputs) if t.name.startswith(CACHE_PREFIXES)}
    if half_cache and any(scan.largest_of(name) > scan.limit for name in cache):
        raise CacheTooLargeError
    passed = {t.name for t in spec.inputs if t.name in before}
    passed |= {t.name for t in spec.outputs if t.name.startswith("hidden.") and scan.largest_of(t.name) <= scan.limit}
    return frozenset(passed | (cache if half_cache else set()))


def _write(source: Path, graph: Path, precision: Precision, scan: RangeScan | None, half: frozenset[str]) -> None:
    """The segment at this precision, its weights in a file of their own, which the merge maps rather than reads."""
    steps = [graph.with_name(graph_file(f".{graph.stem}.{step}")) for step in ("half", "low")]
    last = source
    try:
        if scan is not None:
            write_half(source, steps[0], scan.keep, half)
            last = steps[0]
        if precision in _BITS:
            write_quantised(steps[0], steps[1], _BITS[precision])
            last = steps[1]
        save_graph(load_graph(last), graph, external_data_bytes=0)
    finally:
        for step in (source, *steps):
            for path in graph.parent.glob(f"{step.name}*"):
                path.unlink()


def _run_lowered(
    graph: Path, spec: StageSpec, cases: list[ReferenceCase], state: ChainState, half: frozenset[str]
) -> list[Values]:
    """What the lowered segment makes of the lowered values before it, every fp16 result rounded."""
    emulated = graph.with_name(f".{graph.stem}.emulated.onnx")
    try:
        write_emulated(graph, emulated)
        settings = cpu_settings()
        session = ort.InferenceSession(emulated, settings, providers=["CPUExecutionProvider"])
        found = []
        for case, flow in zip(cases, state.flows, strict=True):
            feeds = {n: flow.lowered.get(n, v) for n, v in case.feeds.items()}
            feeds = {n: v.astype(np.float16) if n in half else v for n, v in feeds.items()}
            names = _names(spec.outputs)
            found.append(dict(zip(names, session.run(names, feeds), strict=True)))
    finally:
        for path in graph.parent.glob(f"{emulated.name}*"):
            path.unlink()
    return found


def _compare(
    segments: LlmSegments, spec: StageSpec, cases: list[ReferenceCase], lowered: list[Values], precision: Precision
) -> list[TensorParity]:
    """Hold what the contract names against PyTorch; the residual stream in between may be what it is."""
    outer = set(_names(segments.spec.outputs))
    found = []
    for case, values in zip(cases, lowered, strict=True):
        for name in (n for n in _names(spec.outputs) if n in outer):
            expected = case.outputs[name]
            found.append(check_values("llm", name, case.lengths, expected, values[name], TOLERANCES[precision]))
    return found


def _next_flows(
    segments: LlmSegments, number: int, state: ChainState, cases: list[ReferenceCase], lowered: list[Values]
) -> tuple[Flow, ...]:
    """What reaches the next segment: all that one after this still reads and the contract does not give."""
    later = [segments.spec_of(n).inputs for n in range(number + 1, len(segments))]
    needed = {t.name for inputs in later for t in inputs} - set(_names(segments.spec.inputs))

    def kept(before: Values, new: Mapping[str, Array]) -> Values:
        return {n: v for n, v in {**before, **new}.items() if n in needed}

    return tuple(
        Flow(flow.lengths, kept(flow.reference, case.outputs), kept(flow.lowered, low))
        for flow, case, low in zip(state.flows, cases, lowered, strict=True)
    )


def _golden(segments: LlmSegments, number: int, case: ReferenceCase) -> Values:
    """This segment's share of the stage's golden data, under its names in the file."""
    inputs = set(_names(segments.spec.inputs)) if number else {"inputs_embeds"}  # the entry reads a length alone
    outputs = {n: v for n, v in case.outputs.items() if n in _names(segments.spec.outputs)}
    return StageGolden({n: v for n, v in case.feeds.items() if n in inputs}, outputs).arrays()


def _report(precision: Precision, scan: RangeScan | None, nodes: dict[str, int], *, half_cache: bool) -> LowReport:
    return LowReport(
        precision=precision.value,
        reasons=(),
        node_types=nodes,
        scanned=scan.runs if scan else 0,
        largest=scan.largest if scan else 0.0,
        largest_value=scan.largest_value if scan else "",
        kept=tuple(f"{e.node} ({e.operator}, {e.largest:.3g})" for e in scan.excesses) if scan else (),
        half_cache=half_cache,
    )


def _names(tensors: tuple[Any, ...]) -> list[str]:
    return [t.name for t in tensors]
