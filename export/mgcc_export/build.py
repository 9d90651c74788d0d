"""The build: reference model -> checked ONNX stages -> bundle. Reads top-down; every step is a module of its own."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from mgcc_export.bundle_writer import BundleWriter
from mgcc_export.device_build import build_plan
from mgcc_export.estimate import estimate_build
from mgcc_export.golden import request_files
from mgcc_export.progress import Progress
from mgcc_export.rebuild import rebuild_command, records_with
from mgcc_export.report import BuildReport, StageReport
from mgcc_export.stage_build import StageBuilder
from mgcc_export.stage_cache import BuiltStage, StageCache, versions
from mgcc_export.stages import ExampleMaker, Stage, cases_note, collect_stages
from mgcc_export.targets import LADDER, Form, Precision, Recipe, request_tolerance, tolerance_of
from mgcc_ref.config import Profile, get_profile
from mgcc_ref.model import MgccModel, is_random, load_model
from mgcc_ref.parts import PartedModel, load_parts
from mgcc_ref.pipeline import PRESENCE_THRESHOLD
from mgcc_ref.schedule import compile_schedule, step_coefficients
from mgcc_runtime.bundle import (
    SCHEMA,
    LayoutRules,
    Manifest,
    StageEntry,
    Tokens,
    Tolerance,
    Vision,
    labels_json,
    read_manifest,
)
from mgcc_runtime.contract import stages
from mgcc_runtime.denoise import Schedule, ScheduleTable
from mgcc_runtime.machine import peak_rss_bytes
from mgcc_runtime.names import (
    EMBEDDINGS,
    LABEL_EMBEDDINGS,
    LABELS,
    PHRASE_TOKENIZER,
    PLAN,
    RUNTIME,
    SCHEDULE,
    TOKENIZER,
    EngineName,
    engine_file,
    graph_file,
)

MAX_STEPS = 50  # schedule.json holds a table for every number of steps up to this; a student's has its own alone
REQUIRES = {RUNTIME: ">=0.1", EngineName.ONNXRUNTIME: ">=1.20"}


@dataclass(frozen=True)
class BuildOptions:
    """What to build and where. `weights` is a folder, "random", or None for the profile's own."""

    profile: str
    recipe: Recipe
    out: Path
    cache: Path
    weights: Path | Literal["random"] | None = None
    stages: tuple[str, ...] = ()
    captured: Path | None = None  # calibration data: scanned for what fp16 cannot hold, source of int8 ranges


def build(options: BuildOptions, progress: Progress) -> BuildReport:
    """Build the bundle `options.out`; any MgccError leaves what was there before untouched.

    Not for what the calibration makes: that is `cpu_build.build_for_cpu`.
    """
    assert not options.recipe.calibrated, "below fp32 on the CPU: call build_for_cpu"
    started = time.monotonic()
    profile, rebuild = get_profile(options.profile), rebuild_command(options)
    with BundleWriter(options.out) as writer:
        progress("model", "loading weights")
        parts = load_parts(profile, options.weights) if profile.llm.streamed else None
        model = parts.model if parts else load_model(profile, options.weights)
        chosen = collect_stages(model, options.stages)
        writer.check_replaceable(s.name for s in chosen)
        builder = _builder(options, model, parts, progress)
        done: dict[str, BuiltStage] = {}
        reports = []
        for stage in chosen:
            built, cached = builder.obtain(stage)
            writer.add_stage(built, records_with(built, rebuild))
            done[stage.name] = built
            reports.append(_stage_report(stage, built, options.recipe, cached=cached))
            progress(stage.name, "kept from an earlier build" if cached else "done")
        progress("bundle", "storing once what the stages share")
        writer.share_weights("unet", "unet_plain")
        reports = [replace(one, bytes=writer.stage_bytes(one.stage)) for one in reports]
        progress("data", "writing tables and tokenizer")
        _add_data(writer, model)
        for name, data in _request_golden(model, parts, chosen, progress).items():
            writer.add_bytes(name, data)
        if options.recipe.on_device:
            plan = build_plan(chosen, options.recipe, profile.name)
            writer.add_bytes(PLAN, (json.dumps(plan, indent=1) + "\n").encode())
        manifest = _manifest(options, model, chosen, done, writer)
        progress("bundle", "checking all files")
        folder = writer.commit(manifest)
        progress("bundle", "done")
        total = sum(f.bytes for f in writer.files.values())
    return BuildReport(
        bundle=str(folder),
        profile=profile.name,
        target=options.recipe.target,
        precision=options.recipe.precision,
        weights=manifest.weights,
        note=options.recipe.note,
        bytes=total,
        elapsed_s=round(time.monotonic() - started, 1),
        peak_memory_bytes=max([peak_rss_bytes() or 0, *(s.peak_memory_bytes for s in reports if not s.from_cache)]),
        built_with=dict(read_manifest(folder).built_with),  # with the version of what built the engines
        stages=reports,
        rebuild=rebuild,
    )


def _builder(options: BuildOptions, model: MgccModel, parts: PartedModel | None, progress: Progress) -> StageBuilder:
    profile, cache = get_profile(options.profile), StageCache(options.cache)
    if parts is None:
        return StageBuilder(profile, options.recipe, ExampleMaker(model), cache, progress, options.captured)
    from mgcc_export.large_build import LargeStageBuilder, PartExamples

    maker = PartExamples(parts)
    return LargeStageBuilder(profile, options.recipe, maker, cache, progress, options.captured, parts=parts)


def _request_golden(
    model: MgccModel, parts: PartedModel | None, chosen: list[Stage], progress: Progress
) -> dict[str, bytes]:
    """Golden data of one whole request.

    A streamed language model reads all of its weights for each word: none for some of the stages, which cannot be
    played as a whole, and a short request where large weights are noise, whose picture and words say nothing.
    """
    if parts is None:
        progress("golden", "running one whole request through the reference")
        return request_files(model)
    if len(chosen) < len(stages(model.dimensions)):
        return {}
    large = model.profile.llm.too_large
    progress("golden", f"running one whole request through the reference{', which takes minutes' if large else ''}")
    parts.hold([s.name for s in chosen])
    try:
        return request_files(model, *((1, 1) if large and parts.random else ()))
    finally:
        parts.release()


def _add_data(writer: BundleWriter, model: MgccModel) -> None:
    """Everything of the bundle that is no stage."""
    writer.add_bytes(TOKENIZER, model.tokenizer.to_str().encode())
    writer.add_array(EMBEDDINGS, np.ascontiguousarray(model.embed_tokens.numpy()))
    writer.add_bytes(SCHEDULE, json.dumps(schedule_of(model.profile).to_json()).encode())
    if model.labels:
        writer.add_bytes(LABELS, json.dumps(labels_json(model.labels)).encode())
        writer.add_array(LABEL_EMBEDDINGS, np.ascontiguousarray(model.label_embeddings.numpy()))
    if model.dimensions.phrase_encoder:
        writer.add_bytes(PHRASE_TOKENIZER, model.text_tokenizer.to_str().encode())


def schedule_of(profile: Profile) -> Schedule:
    """The solver's coefficients for every number of steps that the UNet was trained for."""
    sampler = profile.sampler
    steps = (sampler.default_steps,) if sampler.distilled else range(1, MAX_STEPS + 1)
    return Schedule(
        prediction=profile.unet.prediction,
        scheduler=sampler.scheduler,
        default_steps=sampler.default_steps,
        gate_fraction=profile.unet.gate_fraction,
        tables={number: _table(profile, number) for number in steps},
    )


def _table(profile: Profile, steps: int) -> ScheduleTable:
    compiled = compile_schedule(profile.sampler, profile.unet.prediction, steps)
    coefficients = np.array(step_coefficients(compiled, profile.sampler.order), np.float32)
    return ScheduleTable(compiled.timesteps, compiled.init_scale, coefficients)


def _manifest(
    options: BuildOptions, model: MgccModel, chosen: list[Stage], done: dict[str, BuiltStage], writer: BundleWriter
) -> Manifest:
    profile, recipe = model.profile, options.recipe
    precisions = {name: _precision(built) for name, built in done.items()}
    file_of = engine_file if recipe.form is Form.ENGINE else graph_file
    random = is_random(profile, options.weights)
    return Manifest(
        schema=SCHEMA,
        profile=profile.name,
        target=recipe.target,
        precision={name: precision.value for name, precision in precisions.items()},
        weights="random" if random else "trained",
        dimensions=model.dimensions,
        prompt=model.template,
        tokens=Tokens(model.end_token_ids, model.image_token_ids),
        vision=Vision(profile.clip.pixel_mean, profile.clip.pixel_std),
        layout=LayoutRules(PRESENCE_THRESHOLD, profile.max_overlap, profile.box_edges),
        default_steps=profile.sampler.default_steps,
        default_guidance=profile.sampler.default_guidance,
        stages={
            s.name: StageEntry(file_of(s.name), recipe.engine_of(s.name), s.spec.inputs, s.spec.outputs) for s in chosen
        },
        files=dict(writer.files),
        built_with=versions(),
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        requires=REQUIRES if recipe.form is Form.ONNX else {RUNTIME: REQUIRES[RUNTIME]},
        memory_estimate_bytes=estimate_build(profile, options.stages, recipe).device_memory_bytes,
        tolerances={name: _tolerance(name, built) for name, built in done.items()},
        request_tolerance=request_tolerance(min(precisions.values(), key=LADDER.index), random_weights=random),
    )


def _stage_report(stage: Stage, built: BuiltStage, recipe: Recipe, *, cached: bool) -> StageReport:
    compared = cases_note(stage, [p.lengths for p in built.parity])
    return StageReport(
        stage=stage.name,
        engine=recipe.engine_of(stage.name),
        precision=_precision(built).value,
        nodes=built.nodes,
        weight_bytes=built.weight_bytes,
        bytes=0,  # known when stages have come to share what they can
        export_s=built.export_s,
        validate_s=built.validate_s,
        from_cache=cached,
        tolerance=_tolerance(stage.name, built),
        note="; ".join(filter(None, (compared, built.lowered.note if built.lowered else ""))),
        parity=built.parity,
        lowered=built.lowered,
        peak_memory_bytes=built.peak_memory_bytes,
    )


def _precision(built: BuiltStage) -> Precision:
    """The precision in effect, which may be higher than the one asked for."""
    return Precision(built.lowered.precision) if built.lowered else Precision.FP32


def _tolerance(stage: str, built: BuiltStage) -> Tolerance:
    """What the stage was held to, and is on the device."""
    lowered = built.lowered.tolerance if built.lowered else None
    return lowered or tolerance_of(stage, _precision(built))
