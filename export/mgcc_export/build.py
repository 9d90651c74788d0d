"""The build: reference model -> checked ONNX stages -> bundle. Reads top-down; every step is a module of its own."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from mgcc_export.bundle_writer import BundleWriter
from mgcc_export.estimate import estimate_build
from mgcc_export.golden import request_golden, stage_golden
from mgcc_export.report import BuildReport, StageReport
from mgcc_export.stage_cache import BuiltStage, StageCache, stage_key, versions
from mgcc_export.stages import ExampleMaker, Stage, cases_note, collect_stages, value_cases
from mgcc_export.targets import Recipe
from mgcc_export.to_onnx import export_stage
from mgcc_export.validate import FP32_TOLERANCE, validate_stage
from mgcc_ref.config import Profile, get_profile
from mgcc_ref.model import MgccModel, load_model
from mgcc_ref.pipeline import PRESENCE_THRESHOLD
from mgcc_ref.prompting import vision_statistics
from mgcc_ref.schedule import compile_schedule
from mgcc_runtime.bundle import SCHEMA, Manifest, StageEntry, Tokens, Vision

MAX_STEPS = 50  # schedule.json holds a table for every number of steps up to this; a student's has its own alone
REQUIRES = {"runtime": ">=0.1", "onnxruntime": ">=1.20"}

#: Called with (stage or file group, what is being done with it).
Progress = Callable[[str, str], None]


@dataclass(frozen=True)
class BuildOptions:
    """What to build and where. `weights` is a folder, "random", or None for the profile's own."""

    profile: str
    recipe: Recipe
    out: Path
    cache: Path
    weights: Path | Literal["random"] | None = None
    stages: tuple[str, ...] = ()


def build(options: BuildOptions, progress: Progress) -> BuildReport:
    """Build the bundle `options.out`; any MgccError leaves what was there before untouched."""
    started = time.monotonic()
    profile = get_profile(options.profile)
    with BundleWriter(options.out) as writer:
        progress("model", "loading weights")
        model = load_model(profile, options.weights)
        chosen = collect_stages(model, options.stages)
        writer.check_replaceable(s.name for s in chosen)
        maker, cache = ExampleMaker(model), StageCache(options.cache)
        reports = []
        for stage in chosen:
            built, cached = _obtain(stage, profile, options.recipe, maker, cache, progress)
            writer.add_stage(built)
            reports.append(_stage_report(stage, built, options.recipe, cached=cached))
            progress(stage.name, "kept from an earlier build" if cached else "done")
        progress("data", "writing tables and tokenizer")
        _add_data(writer, model)
        progress("golden", "running one whole request through the reference")
        for name, data in request_golden(model).items():
            writer.add_bytes(name, data)
        manifest = _manifest(options, model, chosen, writer)
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
        peak_memory_bytes=_peak_memory_bytes(),
        built_with=versions(),
        stages=reports,
    )


def _obtain(
    stage: Stage, profile: Profile, recipe: Recipe, maker: ExampleMaker, cache: StageCache, progress: Progress
) -> tuple[BuiltStage, bool]:
    """The accepted stage, and whether the cache had it."""
    name = f"{profile.name}-{stage.name}-{recipe.precision}"
    key = stage_key(stage, profile, recipe.precision)
    if found := cache.get(name, key):
        return found, True
    return cache.put(name, key, lambda folder: _export(stage, maker, folder, progress)), False


def _export(stage: Stage, maker: ExampleMaker, folder: Path, progress: Progress) -> BuiltStage:
    """Export, validate and give golden data; nothing that failed validation reaches the cache."""
    started = time.monotonic()
    progress(stage.name, "exporting")
    path = folder / f"{stage.name}.onnx"
    graph = export_stage(stage.module, stage.spec, stage.axes, maker.trace_inputs(stage), path)
    exported = time.monotonic()
    progress(stage.name, "comparing with PyTorch")
    parity = validate_stage(
        path, stage.module, stage.spec, value_cases(stage), lambda lengths: maker.inputs(stage.spec, lengths)
    )
    golden = folder / "golden" / f"{stage.name}.npz"
    golden.parent.mkdir()
    golden.write_bytes(stage_golden(stage, maker))
    return BuiltStage(
        folder=folder,
        files={},
        nodes=graph.nodes,
        weight_bytes=graph.weight_bytes,
        export_s=round(exported - started, 2),
        validate_s=round(time.monotonic() - exported, 2),
        parity=parity,
    )


def _add_data(writer: BundleWriter, model: MgccModel) -> None:
    """Everything of the bundle that is no stage."""
    writer.add_bytes("tokenizer.json", model.tokenizer.to_str().encode())
    writer.add_array("embed_tokens.npy", np.ascontiguousarray(model.embed_tokens.numpy()))
    writer.add_bytes("schedule.json", json.dumps(schedule_json(model.profile)).encode())
    if model.labels:
        writer.add_bytes("labels.json", json.dumps({"labels": list(model.labels)}).encode())
        writer.add_array("label_embeddings.npy", np.ascontiguousarray(model.label_embeddings.numpy()))
    if model.dimensions.phrase_encoder:
        writer.add_bytes("text_tokenizer.json", model.text_tokenizer.to_str().encode())


def schedule_json(profile: Profile) -> dict[str, object]:
    """schedule.json: the solver's coefficients for every number of steps that the UNet was trained for."""
    sampler, prediction = profile.sampler, profile.unet.prediction
    steps = (sampler.default_steps,) if sampler.distilled else range(1, MAX_STEPS + 1)
    tables = {str(n): compile_schedule(sampler, prediction, n).to_json() for n in steps}
    return {
        "schema": 1,
        "prediction": prediction,
        "scheduler": sampler.scheduler,
        "default_steps": sampler.default_steps,
        "gate_fraction": profile.unet.gate_fraction,
        "tables": tables,
    }


def _manifest(options: BuildOptions, model: MgccModel, chosen: list[Stage], writer: BundleWriter) -> Manifest:
    profile, recipe = model.profile, options.recipe
    random = options.weights == "random" or (options.weights is None and not profile.llm.source)
    mean, std = vision_statistics(model)
    return Manifest(
        schema=SCHEMA,
        profile=profile.name,
        target=recipe.target,
        precision={s.name: recipe.precision.value for s in chosen},
        weights="random" if random else "trained",
        dimensions=model.dimensions,
        prompt=model.template,
        tokens=Tokens(model.end_token_ids, model.image_token_ids),
        vision=Vision(mean, std),
        presence_threshold=PRESENCE_THRESHOLD,
        default_steps=profile.sampler.default_steps,
        default_guidance=profile.sampler.default_guidance,
        stages={s.name: StageEntry(f"{s.name}.onnx", recipe.engine, s.spec.inputs, s.spec.outputs) for s in chosen},
        files=dict(writer.files),
        built_with=versions(),
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        requires=REQUIRES,
        memory_estimate_bytes=estimate_build(profile, options.stages).device_memory_bytes,
        tolerances={s.name: FP32_TOLERANCE for s in chosen},
    )


def _stage_report(stage: Stage, built: BuiltStage, recipe: Recipe, *, cached: bool) -> StageReport:
    return StageReport(
        stage=stage.name,
        engine=recipe.engine,
        precision=recipe.precision.value,
        nodes=built.nodes,
        weight_bytes=built.weight_bytes,
        bytes=sum(f.bytes for n, f in built.files.items() if not n.startswith("golden/")),
        export_s=built.export_s,
        validate_s=built.validate_s,
        from_cache=cached,
        tolerance=FP32_TOLERANCE,
        note=cases_note(stage),
        parity=built.parity,
    )


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
