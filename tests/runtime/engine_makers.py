"""A stage's file for each engine, from the same small graph."""

from __future__ import annotations

import functools
import json
import platform
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from mgcc_export import device_build
from mgcc_export.precision.fp16 import write_half
from mgcc_export.tensorrt.builder import EngineJob, build_engine, profiles_of
from mgcc_export.tensorrt.process import run_engine_job
from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.contract import StageSpec, past_names, present_names, stage
from mgcc_runtime.engines import EngineOptions, Session, open_session
from mgcc_runtime.engines.tensorrt.record import EngineRecord, ProfileRecord, TensorRecord, record_path
from tests.runtime.host_tensorrt import plan_of
from tests.runtime.releases import Release
from tests.runtime.tiny_bundle import DIMENSIONS, make_stage

_KINDS = {onnx.TensorProto.FLOAT: "float", onnx.TensorProto.FLOAT16: "half", onnx.TensorProto.BOOL: "bool"}
CACHE = (*past_names(DIMENSIONS.layers), *present_names(DIMENSIONS.layers))


def write_onnx(folder: Path, name: str, model: onnx.ModelProto | None = None) -> Path:
    """The stage's fp32 graph."""
    path = folder / f"{name}.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model or make_stage(stage(DIMENSIONS, name), DIMENSIONS)), path)
    return path


def write_half_onnx(folder: Path, name: str, model: onnx.ModelProto | None = None) -> Path:
    """The same with an fp16 cache, as the targets of lower precision have it."""
    path = folder / f"{name}-half.onnx"
    write_half(write_onnx(folder, name, model), path, half_boundary=CACHE)
    return path


def write_plan(folder: Path, name: str, release: Release, model: onnx.ModelProto | None = None, **changes: Any) -> Path:
    """What the TensorRT of `host_tensorrt` takes for an engine, with its record; `changes` are fields of that."""
    plan = folder / f"{name}.engine"
    data = _half_graph(name) if model is None else write_half_onnx(folder, name, model).read_bytes()
    plan.write_bytes(plan_of(data))
    graph = onnx.load_from_string(data).graph
    rtx = release.library == "tensorrt_rtx"
    record = EngineRecord(
        release.library, release.version, f"{platform.system().lower()}-{platform.machine().lower()}",
        "8.0" if rtx else "8.9", sha256_of(plan), _tensors(graph.input), _tensors(graph.output),
        tuple(ProfileRecord(dict(p)) for p in profiles_of(stage(DIMENSIONS, name), DIMENSIONS.axes)), (),
        "python export/build_engines.py --target rtx", "tensorrt_rtx --onnx=a.onnx",
    )  # fmt: skip
    record_path(plan).write_text(json.dumps(replace(record, **changes).to_json()))
    return plan


@functools.cache
def _half_graph(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_half_onnx(Path(folder), name).read_bytes()


def build_plan(folder: Path, name: str, library: str, model: onnx.ModelProto | None = None) -> Path:
    """A real engine of the stage, or of a graph of another one under its name, by the library itself."""
    graph, plan = write_half_onnx(folder, name, model), folder / f"{name}.engine"
    profiles = profiles_of(spec_of(model.graph.name if model else name), DIMENSIONS.axes)
    run_engine_job(EngineJob(library, name, str(graph), str(plan), str(record_path(plan)), profiles, ""))
    return plan


def engines_of(planned: Path, out: Path, release: Release) -> Path:
    """A bundle of engines of this release, by its builder in this process, which `host_gpu_with` has made a device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_build, "run_engine_job", build_engine)
        return device_build.build_on_device(planned, out, lambda stage, step: None, release.library)


def open_it(path: Path, release: Release, name: str = "vae_decoder") -> Session:
    """The stage of this plan, by the engine that the manifest names."""
    return open_session(release.library, path, spec_of(name), EngineOptions())


def spec_of(name: str) -> StageSpec:
    return stage(DIMENSIONS, name)


def _tensors(values: Any) -> tuple[TensorRecord, ...]:
    return tuple(
        TensorRecord(
            v.name, _KINDS[v.type.tensor_type.elem_type],
            tuple(-1 if d.dim_param else d.dim_value for d in v.type.tensor_type.shape.dim),
        )
        for v in values
    )  # fmt: skip
