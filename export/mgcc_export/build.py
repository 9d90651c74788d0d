"""The build: reference model -> checked ONNX stages -> bundle. Reads top-down; every step is a module of its own."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from mgcc_calibration.bundle.writer import BundleWriter
from mgcc_export.bundle.golden import golden_files
from mgcc_export.bundle.in_context import InContextParts
from mgcc_export.bundle.preview_fit import fit_preview
from mgcc_export.bundle.rebuild import rebuild_command, records_with
from mgcc_export.device_build import build_plan
from mgcc_export.options import BuildOptions
from mgcc_export.predict.estimate import estimate_build
from mgcc_export.progress import Progress
from mgcc_export.report.table import BuildReport, StageReport
from mgcc_export.stages.answers import ModelAnswers
from mgcc_export.stages.builder import StageBuilder
from mgcc_export.stages.cache import BuiltStage, stage_cache, versions
from mgcc_export.stages.stage import ExampleMaker, Stage, cases_note, collect_stages
from mgcc_export.targets import LADDER, Form, Recipe, request_tolerance, tolerance_of
from mgcc_ref.config import Profile
from mgcc_ref.model import MgccModel, is_random, load_model
from mgcc_ref.parts import PartedModel, load_parts
from mgcc_ref.pipeline import PRESENCE_THRESHOLD
from mgcc_ref.precision import Precision
from mgcc_ref.schedule import compile_schedule, step_coefficients
from mgcc_runtime.bundle.folder import (
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
from mgcc_runtime.bundle.manifest import LinearPreview
from mgcc_runtime.contract import stages
from mgcc_runtime.denoise import Schedule, ScheduleTable
from mgcc_runtime.machine import peak_rss_bytes
from mgcc_runtime.names import (
    DRAW_DECISION,
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

if TYPE_CHECKING:
    from mgcc_export.large.builder import LargeStageBuilder

MAX_STEPS = 50  # schedule.json holds a table for every number of steps up to this; a student's has its own alone
REQUIRES = {RUNTIME: ">=0.1", EngineName.ONNXRUNTIME: ">=1.20"}


def build(options: BuildOptions, progress: Progress) -> BuildReport:
    """Build the bundle `options.out`; after any MgccError an earlier bundle there is as it was.

    A recipe whose stages the calibration makes goes through `cpu_build.build_for_cpu` instead.
    """
    assert not options.recipe.calibrated, "below fp32 on the CPU: call build_for_cpu"
    started = time.monotonic()
    profile, rebuild = options.chosen_profile(), rebuild_command(options)
    with BundleWriter(options.out) as writer:
        progress("model", "loading weights")
        parts = load_parts(profile, options.weights) if profile.llm.streamed else None
        model = parts.model if parts else load_model(profile, options.weights)
        in_context = InContextParts.of(model, options.layout_examples)
        chosen = collect_stages(model, options.stages)
        writer.check_replaceable(s.name for s in chosen)
        builder = _builder(options, model, parts, progress)
        done: dict[str, BuiltStage] = {}
        reports = []
        for stage in chosen:
            built, cached = builder.obtain(stage)
            writer.add_files(built.folder, built.files, records_with(built, rebuild))
            done[stage.name] = built
            reports.append(_stage_report(stage, built, options.recipe, cached=cached))
            progress(stage.name, "kept from an earlier build" if cached else "done")
        progress("bundle", "storing once what the stages share")
        writer.share_weights("unet", "unet_plain")
        reports = [replace(one, bytes=writer.stage_bytes(one.stage)) for one in reports]
        progress("data", "writing tables and tokenizer")
        _add_data(writer, model)
        for name, data in (in_context.files() if in_context else {}).items():
            writer.add_bytes(name, data)
        for name, data in _request_golden(model, parts, chosen, in_context, progress).items():
            writer.add_bytes(name, data)
        if options.recipe.on_device:
            plan = build_plan(chosen, options.recipe, profile)
            writer.add_bytes(PLAN, (json.dumps(plan, indent=1) + "\n").encode())
        manifest = _manifest(options, model, chosen, done)
        match = manifest.request_tolerance.token_match  # asked of a layout's tokens as of a text's
        rules = replace(in_context.rules, token_match=match) if in_context else None
        manifest = replace(manifest, preview=_preview(model, parts, chosen), in_context=rules)
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


def _builder(
    options: BuildOptions, model: MgccModel, parts: PartedModel | None, progress: Progress
) -> StageBuilder | LargeStageBuilder:
    profile, cache = options.chosen_profile(), stage_cache(options.cache)
    answers = ModelAnswers(ExampleMaker(model))
    steps = StageBuilder(profile, options.recipe, answers, cache, progress, options.captured)
    if parts is None:
        return steps
    from mgcc_export.large.builder import LargeStageBuilder

    return LargeStageBuilder.of(steps, parts)


def _request_golden(
    model: MgccModel, parts: PartedModel | None, chosen: list[Stage], in_context: InContextParts | None,
    progress: Progress,
) -> dict[str, bytes]:  # fmt: skip
    """Golden data of one whole request, and of a layout that the language model writes.

    A streamed language model reads all of its weights for each word. So a build of some stages, which cannot run a
    request, has none; and where large weights are random, whose picture and words say nothing, the request is short.
    """
    if parts is None:
        progress("golden", "running one whole request through the reference")
        return golden_files(model, in_context)
    if len(chosen) < len(stages(model.dimensions)):
        return {}
    large = model.profile.llm.too_large
    progress("golden", f"running one whole request through the reference{', which takes minutes' if large else ''}")
    parts.hold([s.name for s in chosen])
    try:
        return golden_files(model, in_context, *((1, 1) if large and parts.random else ()))
    finally:
        parts.release()


def _preview(model: MgccModel, parts: PartedModel | None, chosen: list[Stage]) -> LinearPreview | None:
    """The bundle's linear preview; None for a bundle without a decoder."""
    if "vae_decoder" not in (s.name for s in chosen):
        return None
    if parts is None:
        return fit_preview(model)
    parts.hold(["vae_decoder"])
    try:
        return fit_preview(model)
    finally:
        parts.release()


def _add_data(writer: BundleWriter, model: MgccModel) -> None:
    """Add what is not a stage: tokenizer, embeddings, schedule and labels."""
    writer.add_bytes(TOKENIZER, model.tokenizer.to_str().encode())
    writer.add_array(EMBEDDINGS, np.ascontiguousarray(model.embed_tokens.numpy()))
    writer.add_bytes(SCHEDULE, json.dumps(schedule_of(model.profile).to_json()).encode())
    if model.labels:
        writer.add_bytes(LABELS, json.dumps(labels_json(model.labels)).encode())
        writer.add_array(LABEL_EMBEDDINGS, np.ascontiguousarray(model.label_embeddings.numpy()))
    if model.decision is not None:
        writer.add_array(DRAW_DECISION, model.decision.folded().numpy())
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


def _manifest(options: BuildOptions, model: MgccModel, chosen: list[Stage], done: dict[str, BuiltStage]) -> Manifest:
    """What the bundle says of itself; its files are the writer's to list."""
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
        files={},
        built_with=versions(),
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        requires=REQUIRES if recipe.form is Form.ONNX else {RUNTIME: REQUIRES[RUNTIME]},
        memory_estimate_bytes=estimate_build(profile, options.stages, recipe).device_memory_bytes,
        tolerances={name: _tolerance(name, built) for name, built in done.items()},
        request_tolerance=request_tolerance(min(precisions.values(), key=LADDER.index), random_weights=random),
        profile_in_file=bool(profile.file),
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
    """The tolerance of the stage: it was compared within it here, and the device compares within it."""
    lowered = built.lowered.tolerance if built.lowered else None
    return lowered or tolerance_of(stage, _precision(built))
