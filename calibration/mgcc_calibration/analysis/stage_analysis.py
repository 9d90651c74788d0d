"""The study of one stage: each layer's cost, the layers to spare, a chart, and images side by side."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from mgcc_calibration.analysis.charts import error_chart, side_by_side
from mgcc_calibration.analysis.sensitivity import (
    OTHER_STORIES,
    ImageQuality,
    LayerError,
    Trial,
    keep_worst,
    layer_errors,
    output_quality,
)
from mgcc_calibration.data.requests import storyworld_requests
from mgcc_calibration.data.samples import CalibrationData
from mgcc_calibration.errors import MethodError
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.quantise.plan import Plan, PlanOptions, make_plan
from mgcc_calibration.quantise.qdq import write_qdq
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import stages
from mgcc_runtime.files import write_atomically

_COMPARED = 6  # samples that errors are measured on


@dataclass(frozen=True)
class Study:
    """What `study_stage` found; the same is in its JSON file."""

    stage: str
    errors: tuple[LayerError, ...]  # the worst first
    kept: Mapping[str, str]
    quantised: int
    trials: tuple[Trial, ...]
    least_db: float
    signal_to_noise_db: float  # of the stage's output with the layers that were not kept
    image_psnr_db: float | None  # of whole images


@dataclass(frozen=True)
class StudyOptions:
    """How a stage is studied."""

    plan: PlanOptions
    least_db: float  # below it layers are given back
    images: int  # stories that are drawn with the stage; 0: none
    seed: int  # of those stories
    each_image: bool  # each layer is judged by whole images, too


def study_stage(
    bundle: Bundle, data: CalibrationData, stage: str, out: Path, options: StudyOptions, progress: Callable[[str], None]
) -> Study:
    """Write OUT/STAGE.json, STAGE-layers.png and, with images, STAGE-images.png; DataError or BudgetError."""
    specs = {spec.name: spec for spec in stages(bundle.manifest.dimensions)}
    if stage not in specs:
        raise MethodError(f"the bundle has no stage {stage}; choose from {', '.join(specs)}")
    spec = specs[stage]
    data.check(spec)
    progress("ranges")
    plan = make_plan(
        Graph.load(bundle.file(bundle.manifest.stages[stage].file)), lambda: data.samples(stage), options.plan
    )
    quality = output_quality(plan, spec, lambda: data.samples(stage), _COMPARED)
    probe = _probe(bundle, stage, options.images, options.seed)
    try:
        errors = layer_errors(
            plan, spec, lambda: data.samples(stage), count=_COMPARED, quality=probe if options.each_image else None,
            progress=lambda i, n: progress(f"layer {i} of {n}") if i % 10 == 0 or i == n else None,
        )  # fmt: skip
        progress("looking for the layers to spare")
        found = keep_worst(plan, errors, quality, options.least_db)
        final = write_qdq(found.plan)
        psnr = probe(final) if probe else None
        study = Study(
            stage,
            tuple(errors),
            dict(found.plan.kept),
            len(found.plan.layers),
            found.trials,
            options.least_db,
            quality(final),
            psnr,
        )
        _write(study, found.plan, out)
        if probe:
            sheet = side_by_side(probe.exact, probe.images_with(final), ("fp32", f"{stage} in int8"))
            _save(sheet, out / f"{stage}-images.png")
    finally:
        if probe:
            probe.close()
    return study


def _probe(bundle: Bundle, stage: str, images: int, seed: int) -> ImageQuality | None:
    if images < 1:
        return None
    return ImageQuality(bundle, stage, storyworld_requests(images, seed + OTHER_STORIES).requests)


def _write(study: Study, plan: Plan, out: Path) -> None:
    values = asdict(study) | {"plan": plan.to_json()}
    write_atomically(out / f"{study.stage}.json", (json.dumps(values, indent=1) + "\n").encode())
    title = f"{study.stage}: {study.quantised} layers in int8, {study.signal_to_noise_db:.1f} dB"
    chart = io.BytesIO()
    error_chart(study.errors, study.kept, title).savefig(chart, format="png", dpi=110)
    write_atomically(out / f"{study.stage}-layers.png", chart.getvalue())


def _save(image: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
