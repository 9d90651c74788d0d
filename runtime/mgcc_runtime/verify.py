"""`mgcc verify`: compares this device with the reference's golden data, without torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.bundle import Bundle, read_manifest
from mgcc_runtime.contract import DECODE, StageSpec, stages
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.errors import MgccError
from mgcc_runtime.golden import at_once, one_by_one, request_golden, stage_golden
from mgcc_runtime.machine import describe_machine
from mgcc_runtime.manifest import Tolerance
from mgcc_runtime.pipeline import Pipeline

STRICT = Tolerance(cosine=0.99999, relative_l2=1e-3)  # where the manifest names none: fp32 against PyTorch
MAX_BOX_ERROR = 0.01  # of the image's side
LATENCY_RUNS = 5


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    passed: bool
    detail: str  # what was measured and what is wanted, or the error's sentence
    values: dict[str, float]
    seconds: float


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
        return {"schema": 1, "machine": describe_machine(), "built": built, **self.to_json()}

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {"bundle": self.bundle, "passed": self.passed, "checks": [asdict(f) for f in self.findings]}


def verify(path: str | Path, threads: int = 0) -> Iterator[Finding]:
    """Yield a finding for files, each stage and one whole request, as they are done.

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
    options = EngineOptions(threads)
    for spec in stages(bundle.manifest.dimensions):
        yield _guarded(f"stage {spec.name}", lambda spec=spec: _compare_stage(bundle, spec, options))  # type: ignore[misc]
        if bundle.manifest.stages[spec.name].decode is not None:
            yield _guarded(f"stage {DECODE}", lambda spec=spec: _compare_stage(bundle, spec, options, DECODE))  # type: ignore[misc]
    yield _guarded("request", lambda: _compare_request(bundle, threads))


_Measured = tuple[bool, str, dict[str, float]]


def _guarded(name: str, compare: Callable[[], _Measured]) -> Finding:
    start_s = time.perf_counter()
    try:
        passed, detail, values = compare()
    except MgccError as error:
        passed, detail, values = False, str(error), {}
    return Finding(name, passed, detail, values, _since(start_s))


def _since(start_s: float) -> float:
    return round(time.perf_counter() - start_s, 3)


def _compare_stage(bundle: Bundle, spec: StageSpec, options: EngineOptions, graph: str = "") -> _Measured:
    """One graph against the stage's golden data; the one for decoding reads it position by position."""
    golden = stage_golden(bundle, spec.name)
    entry = bundle.manifest.graphs()[graph or spec.name]
    run = one_by_one if graph == DECODE else at_once
    session = open_session(entry.engine, bundle.file(entry.file), spec, options)
    try:
        start_s = time.perf_counter()
        outputs = run(session, golden.inputs)
        first_ms = (time.perf_counter() - start_s) * 1e3
        usual_ms = _latency_ms(lambda: run(session, golden.inputs))
    finally:
        session.close()
    tolerance = bundle.manifest.tolerances.get(spec.name, STRICT)
    least_cosine, most_l2, worst = 1.0, 0.0, ""
    for tensor in spec.outputs:
        if tensor.name not in golden.outputs or golden.outputs[tensor.name].shape != outputs[tensor.name].shape:
            return False, f"the golden data has no output {tensor.name} of shape {outputs[tensor.name].shape}", {}
        pair = outputs[tensor.name], golden.outputs[tensor.name]
        similarity, distance = cosine(*pair), relative_l2(*pair)
        if distance >= most_l2:
            worst = tensor.name
        least_cosine, most_l2 = min(least_cosine, similarity), max(most_l2, distance)
    passed = least_cosine >= tolerance.cosine and most_l2 <= tolerance.relative_l2
    detail = (
        f"cosine {least_cosine:.7f} (at least {tolerance.cosine}), relative L2 {most_l2:.1e} "
        f"(at most {tolerance.relative_l2:g}), worst output {worst}; {usual_ms:.2f} ms (first run {first_ms:.2f})"
    )
    values = {"cosine": least_cosine, "relative_l2": most_l2, "ms": usual_ms, "first_ms": first_ms}
    return passed, detail, {name: round(value, 9) for name, value in values.items()}


def _latency_ms(run: Callable[[], object]) -> float:
    """Median of a few runs on the golden inputs, which are short: for the cost of requests there is `mgcc bench`."""
    found = []
    for _ in range(LATENCY_RUNS):
        start_s = time.perf_counter()
        run()
        found.append((time.perf_counter() - start_s) * 1e3)
    return float(np.median(found))


def _compare_request(bundle: Bundle, threads: int) -> _Measured:
    golden, limits = request_golden(bundle), bundle.manifest.request_tolerance
    with Pipeline(bundle, EngineOptions(threads)) as pipeline:
        result = pipeline.generate(
            golden.parts, seed=golden.seed, steps=golden.steps, guidance=golden.guidance, words=golden.words
        )
    decibels = psnr_db(np.asarray(result.image), golden.image)
    tokens = common_prefix(result.text_tokens, golden.token_ids)
    labels_equal = tuple(box.label for box in result.boxes) == golden.labels
    size = bundle.manifest.dimensions.image_px
    box_error = 1.0
    if labels_equal:
        found = np.array([box.xyxy for box in result.boxes], np.float64).reshape(-1, 4)
        box_error = float(np.abs(found - golden.boxes).max(initial=0.0)) / size
    passed = decibels >= limits.psnr_db and tokens >= limits.token_match
    detail = f"image PSNR {decibels:.1f} dB (at least {limits.psnr_db:g}), {tokens:.0%} of the text tokens equal"
    if limits.boxes_equal:
        passed = passed and box_error <= MAX_BOX_ERROR
        boxes = f"boxes within {box_error:.2%} of the side" if labels_equal else "other objects in the layout"
        detail += f", {boxes}"
    return passed, detail, {"psnr_db": min(decibels, 999.0), "token_match": tokens, "box_error": box_error}


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Cosine of two arrays as vectors; 1 where both are zero."""
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    if length == 0:
        return 1.0 if np.array_equal(x, y) else 0.0
    return float(x @ y) / length


def relative_l2(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Distance over the length of what was expected; 0 where both are zero."""
    difference = float(np.linalg.norm(found.astype(np.float64) - expected.astype(np.float64)))
    length = float(np.linalg.norm(expected.astype(np.float64)))
    return difference / length if length else (0.0 if difference == 0 else float("inf"))


def psnr_db(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of 8-bit images; infinite where they are equal, 0 where their sizes differ."""
    if found.shape != expected.shape:
        return 0.0
    error = float(np.mean((found.astype(np.float64) - expected.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def common_prefix(found: tuple[int, ...], expected: tuple[int, ...]) -> float:
    """Length of the common beginning as a share of the longer one; 1 where both are empty."""
    longer = max(len(found), len(expected))
    same = 0
    for a, b in zip(found, expected, strict=False):
        if a != b:
            break
        same += 1
    return same / longer if longer else 1.0
