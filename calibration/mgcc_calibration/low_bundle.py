"""A bundle of lower precision from an fp32 one: other graphs for some stages, everything else as it was."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path

from mgcc_calibration.errors import CalibrationError
from mgcc_calibration.graph import copy_renamed, digest_of, files_of
from mgcc_runtime.bundle import (
    Bundle,
    FileEntry,
    GraphEntry,
    Manifest,
    StageEntry,
    sha256_of,
    write_manifest,
)
from mgcc_runtime.closeness import common_prefix, cosine, relative_l2
from mgcc_runtime.contract import DECODE, stages
from mgcc_runtime.cpu_features import cpu_features
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.files import copy_file, hidden_beside
from mgcc_runtime.golden import at_once, one_by_one, request_golden, stage_golden
from mgcc_runtime.golden_play import play_request
from mgcc_runtime.machine import describe_machine
from mgcc_runtime.manifest import MeasuredOn, RequestTolerance, Tolerance
from mgcc_runtime.names import GOLDEN_REQUEST, MANIFEST, EngineName, golden_file, graph_file, weights_file
from mgcc_runtime.pipeline import Pipeline
from mgcc_runtime.verify import most_box_error

#: Another machine sums in another order, and one code more or less goes through the whole stage: half as much again.
_SLACK = 1.5
_REQUEST_SLACK_DB = 3.0
_LOWEST_OPENVINO = ">=2025.0"
#: The first with kernels for 8-bit blocks, which graphs with 4-bit and with dynamic weights hold, too.
_LOWEST_ONNXRUNTIME = ">=1.22"
_WITH_BLOCKS = ("int8-weights", "int4-weights", "int8-dynamic")


@dataclass(frozen=True)
class StageChange:
    """The graph that a stage gets, and what runs it."""

    path: Path
    engine: str
    precision: str


def write_low_bundle(source: Bundle, changes: Mapping[str, StageChange], out: Path, threads: int = 0) -> Bundle:
    """Write `out`, check it as a device would, and state in its manifest how near it comes to the golden data.

    CalibrationError if `out` holds anything. A killed run leaves a hidden folder that nothing loads.
    """
    if out.exists() and any(out.iterdir()):
        raise CalibrationError(f"{out} is not empty, expected a new folder for the bundle; give another or remove it")
    out = out.resolve()  # a link to a folder stays one
    staging = hidden_beside(out, "partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        manifest = _copy(source, changes, staging)
        write_manifest(staging, manifest)
        manifest = replace(manifest, tolerances=_stage_tolerances(Bundle.open(staging), changes, threads))
        write_manifest(staging, manifest)
        if source.has(GOLDEN_REQUEST):
            manifest = replace(manifest, request_tolerance=_request_tolerance(Bundle.open(staging), threads))
            write_manifest(staging, manifest)
        if out.exists():
            out.rmdir()
        staging.rename(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Bundle.open(out)


def _copy(source: Bundle, changes: Mapping[str, StageChange], staging: Path) -> Manifest:
    """All files in place, and the manifest that lists them."""
    manifest = source.manifest
    replaced = {manifest.stages[name].file for name in changes if name != DECODE}
    replaced |= {weights_file(name) for name in replaced} - _weights_of_others(source, replaced)
    files: dict[str, FileEntry] = {}
    for name, entry in manifest.files.items():
        if name not in replaced and name != MANIFEST:
            copy_file(source.root / name, staging / name)
            files[name] = entry
    entries, precision = dict(manifest.stages), dict(manifest.precision)
    for stage, change in changes.items():
        if stage == DECODE:
            continue
        graph = _graph(change, change.path.name, staging, files)
        old = entries[stage]
        entries[stage] = StageEntry(graph.file, graph.engine, old.inputs, old.outputs, old.decode)
        precision[stage] = change.precision
    if (one := changes.get(DECODE)) is not None:
        entries["llm"] = replace(entries["llm"], decode=_decode(one, changes["llm"], staging, files))
    requires = dict(manifest.requires)
    if any(change.engine in (EngineName.OPENVINO, EngineName.OPENVINO_BF16) for change in changes.values()):
        requires[EngineName.OPENVINO] = _LOWEST_OPENVINO
    if any(change.engine == EngineName.ONNXRUNTIME and change.precision in _WITH_BLOCKS for change in changes.values()):
        requires[EngineName.ONNXRUNTIME] = _LOWEST_ONNXRUNTIME
    return replace(
        manifest, stages=entries, precision=precision, files=dict(sorted(files.items())), requires=requires,
        measured_on=_here(),
    )  # fmt: skip


def _here() -> MeasuredOn:
    machine = describe_machine()
    return MeasuredOn(str(machine["cpu"]), int(machine["cores"]), cpu_features())


def _weights_of_others(source: Bundle, replaced: Set[str]) -> set[str]:
    """Files of weights that graphs besides the `replaced` ones read: the two UNets may share one."""
    kept = [entry.file for entry in source.manifest.stages.values() if entry.file not in replaced]
    return {path.name for name in kept for path in files_of(source.root / name)[1:]}


def _decode(one: StageChange, several: StageChange, staging: Path, files: dict[str, FileEntry]) -> GraphEntry | None:
    """The language model's second graph; None where one graph was chosen for both uses."""
    if one.engine == several.engine and digest_of(one.path) == digest_of(several.path):
        return None
    return _graph(one, graph_file(DECODE), staging, files)


def _graph(change: StageChange, name: str, staging: Path, files: dict[str, FileEntry]) -> GraphEntry:
    """The change's file, and those of its weights if they are others, in the bundle and in `files`."""
    graph, *weights = files_of(change.path)
    renamed = {weights_file(graph.name): weights_file(name)}
    for path in weights:
        target = renamed.get(path.name, path.name)
        entry = FileEntry(path.stat().st_size, sha256_of(path))
        if target not in files:
            copy_file(path, staging / target)
        elif files[target] != entry:
            raise CalibrationError(
                f"{graph} reads {target}, of which another stage has its own; lower both stages, or neither"
            )
        files[target] = entry
    if weights and name != graph.name:
        copy_renamed(graph, staging / name, renamed)
    else:
        copy_file(graph, staging / name)
    files[name] = FileEntry((staging / name).stat().st_size, sha256_of(staging / name))
    return GraphEntry(name, change.engine, change.precision)


def _stage_tolerances(bundle: Bundle, changes: Mapping[str, StageChange], threads: int) -> dict[str, Tolerance]:
    """For changed stages what they reach on the golden data, with slack; for the others what was promised before."""
    found = dict(bundle.manifest.tolerances)
    graphs = bundle.manifest.graphs()
    for spec in stages(bundle.manifest.dimensions):
        if spec.name not in changes or not bundle.has(golden_file(spec.name)):
            continue
        golden, pairs = stage_golden(bundle, spec.name), []
        for name, run in ((spec.name, at_once), (DECODE, one_by_one)):
            if name == DECODE and (spec.name != "llm" or DECODE not in graphs):
                continue
            session = open_session(graphs[name].engine, bundle.file(graphs[name].file), spec, EngineOptions(threads))
            try:
                outputs = run(session, golden.inputs)
            finally:
                session.close()
            pairs += [(outputs[t.name], golden.outputs[t.name]) for t in spec.outputs]
        distance = _SLACK * max(relative_l2(*pair) for pair in pairs)
        angle = _SLACK**2 * max(1 - cosine(*pair) for pair in pairs)
        before = found.get(spec.name, Tolerance(1.0, 0.0))
        least = min(before.cosine, 1 - angle)
        found[spec.name] = Tolerance(least, max(before.relative_l2, distance))
    return found


def _request_tolerance(bundle: Bundle, threads: int) -> RequestTolerance:
    """What one whole request reaches, with slack. A text that takes another turn early says nothing of later words."""
    golden = request_golden(bundle)
    with Pipeline(bundle, EngineOptions(threads)) as pipeline:
        played = play_request(pipeline, golden)
    before = bundle.manifest.request_tolerance
    decibels = played.psnr_db - _REQUEST_SLACK_DB
    tokens = common_prefix(played.result.text_tokens, golden.token_ids)
    box_error = played.box_error_px / bundle.manifest.dimensions.image_px  # the whole side where labels differ
    return RequestTolerance(
        psnr_db=min(before.psnr_db, decibels),
        token_match=min(before.token_match, tokens / 2),
        boxes_equal=before.boxes_equal and box_error <= most_box_error(bundle.manifest) and decibels > before.psnr_db,
    )
