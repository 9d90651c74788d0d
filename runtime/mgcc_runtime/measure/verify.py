"""`mgcc verify`: compares this device with the reference's golden data, without torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.bundle.cpu_remark import cpu_remark
from mgcc_runtime.bundle.folder import REBUILD, Bundle, read_manifest
from mgcc_runtime.bundle.manifest import Manifest, Tolerance
from mgcc_runtime.contract import DECODE, BoxEdges, StageSpec, stages
from mgcc_runtime.engines import EngineOptions, Session, open_session
from mgcc_runtime.engines.tensorrt.origin import bundle_remark
from mgcc_runtime.errors import MgccError
from mgcc_runtime.machine import describe_gpus, describe_machine
from mgcc_runtime.measure.golden import StageGolden, at_once, one_by_one, request_golden, stage_golden
from mgcc_runtime.measure.golden_layout import layout_golden, play_layout
from mgcc_runtime.measure.golden_request import TURNED_BOX_PX, play_request
from mgcc_runtime.measure.power import describe_clocks
from mgcc_runtime.measure.similarity import common_prefix, cosine, relative_l2
from mgcc_runtime.names import GOLDEN_LAYOUT, PLAN, EngineName, TargetName
from mgcc_runtime.pipeline import Pipeline

STRICT = Tolerance(cosine=0.99999, relative_l2=1e-3)  # where the manifest names none: fp32 against PyTorch
MAX_BOX_ERROR = 0.01  # of the image's side
LATENCY_RUNS = 5  # after the first: the second may capture a CUDA graph, so the last one is a replay
_CALLS = {"first": "in the first run", "last": "in the last run", "step": "for one position alone"}
_Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    passed: bool
    detail: str  # what was measured and what is wanted, or the error's sentence
    values: dict[str, float]
    seconds: float
    providers: tuple[str, ...] = ()  # what a stage really ran on, the most important first


@dataclass(frozen=True)
class Report:
    bundle: str
    findings: tuple[Finding, ...]

    def for_sending(self) -> dict[str, Any]:
        """What someone elsewhere needs to judge this device: the findings, the machine and what the bundle is."""
        try:
            manifest = read_manifest(Path(self.bundle))
            built = {
                "profile": manifest.profile,
                "target": manifest.target,
                "weights": manifest.weights,
                "precision": {name: graph.precision for name, graph in manifest.graphs().items()},
                "engines": {name: graph.engine for name, graph in manifest.graphs().items()},
                "built_at": manifest.built_at,
                "built_with": dict(manifest.built_with),
            }
        except MgccError:
            built = {}  # the finding about its files says why
        machine = {**describe_machine(), "clocks": describe_clocks()}  # there are latencies among the findings
        return {"schema": 1, "machine": machine, "built": built, **self.to_json()}

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {"bundle": self.bundle, "passed": self.passed, "checks": [asdict(f) for f in self.findings]}


def verify(path: str | Path, threads: int = 0) -> Iterator[Finding]:
    """Yield a finding for files, each stage, the device (of a GPU's bundle) and one whole request, as they are done.

    Stages are opened one at a time, so this needs no more memory than the largest, until the whole request.
    An altered bundle is not run: then the finding about its files is the only one.
    """
    start_s = time.perf_counter()
    try:
        bundle = Bundle.open(path)
    except MgccError as error:
        yield Finding("files", False, str(error), {}, _since(start_s))
        return
    files = bundle.manifest.files.values()
    megabytes = sum(f.bytes for f in files) / 1e6
    detail = f"{len(files)} files, {megabytes:.1f} MB: sizes and SHA-256 as in the manifest"
    yield Finding("files", True, detail, {"files": len(files), "megabytes": round(megabytes, 3)}, _since(start_s))
    if remark := cpu_remark(bundle.manifest):
        yield Finding("cpu", True, remark, {}, 0.0)  # the stages' own lines say whether values are right
    options, ran_on = EngineOptions(threads), dict[str, tuple[str, ...]]()
    for spec in stages(bundle.manifest.dimensions):
        decoding = (DECODE,) if bundle.manifest.stages[spec.name].decode is not None else ()
        for graph in (spec.name, *decoding):
            finding = _guarded(f"stage {graph}", partial(_compare_stage, bundle, spec, options, graph))
            ran_on[graph] = finding.providers
            yield finding
    if bundle.manifest.target != TargetName.CPU and any(ran_on.values()):
        yield _guarded("device", partial(_judge_device, bundle, ran_on))
    yield _guarded("request", partial(_compare_request, bundle, threads))
    if bundle.manifest.in_context is not None:
        yield _guarded("layout", partial(_compare_layout, bundle, bundle.manifest.in_context.token_match, threads))


@dataclass(frozen=True)
class _Measured:
    """A finding before it has a name and a time."""

    passed: bool
    detail: str
    values: dict[str, float]
    providers: tuple[str, ...] = ()


def _guarded(name: str, compare: Callable[[], _Measured]) -> Finding:
    start_s = time.perf_counter()
    try:
        found = compare()
    except MgccError as error:
        found = _Measured(False, str(error), {})
    return Finding(name, found.passed, found.detail, found.values, _since(start_s), found.providers)


def _since(start_s: float) -> float:
    return round(time.perf_counter() - start_s, 3)


@dataclass(frozen=True)
class _Deviation:
    """How far one call's outputs are from the reference's."""

    call: str  # of `_CALLS`
    cosine: float  # the least of all outputs
    relative_l2: float  # of `output`, the most
    output: str

    @classmethod
    def of(cls, call: str, found: _Outputs, expected: _Outputs) -> _Deviation:
        distances = {name: relative_l2(found[name], value) for name, value in expected.items()}
        worst = max(distances, key=distances.__getitem__)
        least = min(cosine(found[name], value) for name, value in expected.items())
        return cls(call, least, distances[worst], worst)


def _compare_stage(bundle: Bundle, spec: StageSpec, options: EngineOptions, graph: str) -> _Measured:
    """One graph against the stage's golden data; the one for decoding reads it position by position.

    The first run and the last: in between CUDA graphs are captured, and kernels for these very shapes may come in.
    Where the language model has one graph for all, also one position alone behind a cache, which is what decoding
    asks of it: TensorRT has another profile for that.
    """
    golden = stage_golden(bundle, spec.name)
    entry = bundle.manifest.graphs()[graph]
    run = one_by_one if graph == DECODE else at_once
    session = open_session(entry.engine, bundle.file(entry.file), spec, options)
    try:
        first, last, first_ms, usual_ms = _timed(lambda: run(session, golden.inputs))
        if missing := _missing(spec, golden, first):
            return _Measured(False, missing, {}, session.providers)
        expected = {t.name: golden.outputs[t.name] for t in spec.outputs}
        found = [_Deviation.of(call, outputs, expected) for call, outputs in (("first", first), ("last", last))]
        if graph == "llm" and bundle.manifest.stages[graph].decode is None:
            found += _compare_last_alone(session, golden)
    finally:
        session.close()
    return _judge_stage(found, bundle.manifest.tolerances.get(spec.name, STRICT), first_ms, usual_ms, session.providers)


def _judge_stage(
    found: Sequence[_Deviation], tolerance: Tolerance, first_ms: float, usual_ms: float, providers: tuple[str, ...]
) -> _Measured:
    worst = max(found, key=lambda one: one.relative_l2)
    least_cosine = min(one.cosine for one in found)
    passed = least_cosine >= tolerance.cosine and worst.relative_l2 <= tolerance.relative_l2
    detail = (
        f"cosine {least_cosine:.7f} (at least {tolerance.cosine}), relative L2 {worst.relative_l2:.1e} "
        f"(at most {tolerance.relative_l2:g}), worst output {worst.output} {_CALLS[worst.call]}; {usual_ms:.2f} ms "
        f"(first run {first_ms:.2f}) on {', '.join(providers)}"
    )
    values = {"cosine": least_cosine, "relative_l2": worst.relative_l2, "ms": usual_ms, "first_ms": first_ms}
    values |= {f"{one.call}_relative_l2": one.relative_l2 for one in found}
    return _Measured(passed, detail, {name: round(value, 9) for name, value in values.items()}, providers)


def _missing(spec: StageSpec, golden: StageGolden, outputs: _Outputs) -> str:
    """What the golden data lacks, in a sentence; empty if nothing."""
    for tensor in spec.outputs:
        if tensor.name not in golden.outputs or golden.outputs[tensor.name].shape != outputs[tensor.name].shape:
            return f"the golden data has no output {tensor.name} of shape {outputs[tensor.name].shape}; {REBUILD}"
    return ""


def _compare_last_alone(session: Session, golden: StageGolden) -> list[_Deviation]:
    """The last golden position, read alone behind the kept cache of the others; nothing where there is only one."""
    embeddings = golden.inputs["inputs_embeds"]
    if embeddings.shape[1] < 2:
        return []
    past = [t.name for t in session.spec.inputs if "P" in t.shape]
    present = [t.name for t in session.spec.outputs if "T" in t.shape]
    before = session.run({**golden.inputs, "inputs_embeds": embeddings[:, :-1]}, keep=present).kept
    cache = {old: before[new] for old, new in zip(past, present, strict=True)}
    found = session.run({"inputs_embeds": embeddings[:, -1:], **cache}, keep=present).arrays
    expected = {"logits": golden.outputs["logits"], "hidden_states": golden.outputs["hidden_states"][:, -1:]}
    return [_Deviation.of("step", found, expected)]


def _timed(run: Callable[[], _Outputs]) -> tuple[_Outputs, _Outputs, float, float]:
    """Outputs of the first run and of the last, ms of the first and the median of the others.

    On the golden inputs, which are short: for the cost of requests there is `mgcc bench`.
    """
    spent_ms: list[float] = []
    first: _Outputs = {}
    last: _Outputs = {}
    for _ in range(1 + LATENCY_RUNS):
        start_s = time.perf_counter()
        last = run()
        spent_ms.append((time.perf_counter() - start_s) * 1e3)
        first = first or last
    return first, last, spent_ms[0], float(np.median(spent_ms[1:]))


def _judge_device(bundle: Bundle, ran_on: Mapping[str, tuple[str, ...]]) -> _Measured:
    """Whether a bundle for a GPU ran on one.

    It fails where a stage ran on the CPU alone, though the stage's own line says that its values are right: who
    verifies a device with a bundle for a GPU asks whether that GPU does the work, and a report that says PASS would be
    taken for it. A line of its own, so that the values can be told from it. Graphs from which engines are yet to be
    built pass where there is no GPU at all: that is the machine they were made on.
    """
    on_cpu = [graph for graph, names in ran_on.items() if names and all("CPU" in name for name in names)]
    values: dict[str, float] = {"graphs": len(ran_on), "on_cpu": len(on_cpu)}
    providers = tuple(dict.fromkeys(name for names in ran_on.values() for name in names))
    target = bundle.manifest.target
    if not on_cpu:
        remark = bundle_remark(bundle)
        told = f"no stage on the CPU alone, as target {target} asks" + (f"; {remark}" if remark else "")
        return _Measured(True, told, values, providers)
    engines = {bundle.manifest.graphs()[graph].engine for graph in on_cpu}
    found = describe_gpus()
    if engines == {EngineName.ONNXRUNTIME} and not found["gpus"] and "jetson" not in found:
        told = f"no GPU here: graphs for {target}, compared on the CPU; its {PLAN} has the command for the device"
        return _Measured(True, told, values, providers)
    way_out = (
        "check the driver with `nvidia-smi` and the package with `pip install 'mgcc-edge[gpu]'`"
        if engines == {EngineName.ONNXRUNTIME_GPU}
        else f"build the engines with the command of its {PLAN}"
    )
    return _Measured(
        False,
        f"{', '.join(on_cpu)} ran on the CPU alone, expected a GPU, which target {target} is for; {way_out}, or use a "
        "bundle that was built with --target cpu",
        values,
        providers,
    )


def most_box_error(manifest: Manifest) -> float:
    """How far an edge of a box may be from the reference's, as a share of the image's side."""
    turned = manifest.layout.box_edges is BoxEdges.WHOLE_PIXELS
    return max(MAX_BOX_ERROR, TURNED_BOX_PX / manifest.dimensions.image_px) if turned else MAX_BOX_ERROR


def _compare_request(bundle: Bundle, threads: int) -> _Measured:
    golden, limits = request_golden(bundle), bundle.manifest.request_tolerance
    with Pipeline(bundle, EngineOptions(threads)) as pipeline:
        played = play_request(pipeline, golden)
    tokens = common_prefix(played.result.text_tokens, golden.token_ids)
    size = bundle.manifest.dimensions.image_px
    box_error = played.box_error_px / size
    passed = played.psnr_db >= limits.psnr_db and tokens >= limits.token_match
    boxes_given = ", drawn with the reference's boxes" if played.redrawn else ""
    detail = (
        f"image PSNR {played.psnr_db:.1f} dB (at least {limits.psnr_db:g}){boxes_given}, "
        f"{tokens:.0%} of the text tokens equal"
    )
    if limits.boxes_equal:
        passed = passed and box_error <= most_box_error(bundle.manifest)
        boxes = f"boxes within {box_error:.2%} of the side" if played.labels_equal else "other objects in the layout"
        detail += f", {boxes}"
    values = {"psnr_db": min(played.psnr_db, 999.0), "token_match": tokens, "box_error": box_error}
    return _Measured(passed, detail, values)


def _compare_layout(bundle: Bundle, least_match: float, threads: int) -> _Measured:
    if not bundle.has(GOLDEN_LAYOUT):
        return _Measured(True, "no golden layout: the reference would have taken hours to write one", {})
    golden = layout_golden(bundle)
    with Pipeline(bundle, EngineOptions(threads)) as pipeline:
        written = play_layout(pipeline, golden)
    match = common_prefix(written.tokens, golden.token_ids)
    detail = f"{match:.0%} of the {len(golden.token_ids)} tokens of a layout equal (at least {least_match:.0%})"
    return _Measured(match >= least_match, detail, {"token_match": match})
