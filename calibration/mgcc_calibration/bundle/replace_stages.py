"""A bundle of lower precision from an fp32 one: other graphs for some stages, everything else as it was."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path

from mgcc_calibration.bundle.writer import BundleWriter
from mgcc_calibration.cache import file_entry
from mgcc_calibration.errors import CalibrationError
from mgcc_calibration.graphs.storage import digest_of, files_of, with_weights_in
from mgcc_runtime.bundle.folder import Bundle, GraphEntry, Manifest, StageEntry
from mgcc_runtime.bundle.manifest import MeasuredOn, RequestTolerance, Tolerance
from mgcc_runtime.contract import DECODE, stages
from mgcc_runtime.device.cpu_features import cpu_features
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.machine import describe_machine
from mgcc_runtime.measure.golden import at_once, one_by_one, request_golden, stage_golden
from mgcc_runtime.measure.golden_layout import layout_golden, play_layout
from mgcc_runtime.measure.golden_request import play_request
from mgcc_runtime.measure.similarity import common_prefix, cosine, relative_l2
from mgcc_runtime.measure.verify import most_box_error
from mgcc_runtime.names import (
    GOLDEN_LAYOUT,
    GOLDEN_REQUEST,
    MANIFEST,
    EngineName,
    golden_file,
    graph_file,
    weights_file,
)
from mgcc_runtime.pipeline import Pipeline

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


def replace_stages(
    source: Bundle, changes: Mapping[str, StageChange], writer: BundleWriter, threads: int = 0
) -> Bundle:
    """Write `source` with other graphs for some stages, and state in its manifest how near it comes to the golden data.

    The bundle as a device would open it; it is the caller's to put in its place. CalibrationError where two stages
    would have a file of weights by the same name.
    """
    manifest = _copy(source, changes, writer)
    manifest = replace(manifest, tolerances=_stage_tolerances(writer.opened(manifest), changes, threads))
    if source.has(GOLDEN_REQUEST):
        manifest = replace(manifest, request_tolerance=_request_tolerance(writer.opened(manifest), threads))
    if manifest.in_context is not None and source.has(GOLDEN_LAYOUT):
        match = min(manifest.in_context.token_match, _layout_match(writer.opened(manifest), threads) / 2)
        manifest = replace(manifest, in_context=replace(manifest.in_context, token_match=match))
    writer.share_weights("unet", "unet_plain")
    return writer.opened(manifest)


def _copy(source: Bundle, changes: Mapping[str, StageChange], writer: BundleWriter) -> Manifest:
    """All files in place, and the manifest of the stages that they are."""
    manifest = source.manifest
    replaced = {manifest.stages[name].file for name in changes if name != DECODE}
    replaced |= {weights_file(name) for name in replaced} - _weights_of_others(source, replaced)
    kept = {name: entry for name, entry in manifest.files.items() if name not in replaced and name != MANIFEST}
    writer.add_files(source.root, kept)
    entries, precision = dict(manifest.stages), dict(manifest.precision)
    for stage, change in changes.items():
        if stage == DECODE:
            continue
        graph = _graph(change, change.path.name, writer)
        old = entries[stage]
        entries[stage] = StageEntry(graph.file, graph.engine, old.inputs, old.outputs, old.decode)
        precision[stage] = change.precision
    if (one := changes.get(DECODE)) is not None:
        entries["llm"] = replace(entries["llm"], decode=_decode(one, changes["llm"], writer))
    requires = dict(manifest.requires)
    if any(change.engine in (EngineName.OPENVINO, EngineName.OPENVINO_BF16) for change in changes.values()):
        requires[EngineName.OPENVINO] = _LOWEST_OPENVINO
    if any(change.engine == EngineName.ONNXRUNTIME and change.precision in _WITH_BLOCKS for change in changes.values()):
        requires[EngineName.ONNXRUNTIME] = _LOWEST_ONNXRUNTIME
    return replace(manifest, stages=entries, precision=precision, requires=requires, measured_on=_here())


def _here() -> MeasuredOn:
    machine = describe_machine()
    return MeasuredOn(str(machine["cpu"]), int(machine["cores"]), cpu_features())


def _weights_of_others(source: Bundle, replaced: Set[str]) -> set[str]:
    """Files of weights that graphs besides the `replaced` ones read: the two UNets may share one."""
    kept = [entry.file for entry in source.manifest.stages.values() if entry.file not in replaced]
    return {path.name for name in kept for path in files_of(source.root / name)[1:]}


def _decode(one: StageChange, several: StageChange, writer: BundleWriter) -> GraphEntry | None:
    """The language model's second graph; None where one graph was chosen for both uses."""
    if one.engine == several.engine and digest_of(one.path) == digest_of(several.path):
        return None
    return _graph(one, graph_file(DECODE), writer)


def _graph(change: StageChange, name: str, writer: BundleWriter) -> GraphEntry:
    """The change's file, and those of its weights if they are others, in the bundle."""
    graph, *weights = files_of(change.path)
    renamed = {weights_file(graph.name): weights_file(name)}
    for path in weights:
        target, entry = renamed.get(path.name, path.name), file_entry(path)
        if writer.files.get(target, entry) != entry:
            raise CalibrationError(
                f"{graph} reads {target}, of which another stage has its own; lower both stages, or neither"
            )
        writer.add_file(target, path, entry)
    if weights and name != graph.name:
        writer.add_bytes(name, with_weights_in(graph, renamed))
    else:
        writer.add_file(name, graph)
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


def _layout_match(bundle: Bundle, threads: int) -> float:
    """The share of the golden layout's tokens that are the same."""
    golden = layout_golden(bundle)
    with Pipeline(bundle, EngineOptions(threads)) as pipeline:
        return common_prefix(play_layout(pipeline, golden).tokens, golden.token_ids)


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
