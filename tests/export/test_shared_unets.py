"""Bundles with GLIGEN's gates: the UNet's two graphs hold most of their weights in one file, and stay right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from mgcc_export.build import build
from mgcc_export.options import BuildOptions
from mgcc_export.predict.estimate import estimate_build
from mgcc_export.report.table import BuildReport
from mgcc_export.targets import Recipe, Target, choose_recipe
from mgcc_export.tensorrt.builder import EngineJob
from mgcc_export.tensorrt.process import run_engine_job
from mgcc_ref import config
from mgcc_ref.config import Grounding, SamplerConfig, get_profile
from mgcc_ref.precision import Precision
from mgcc_ref.schedule import compile_schedule
from mgcc_runtime import Pipeline
from mgcc_runtime.bundle.folder import Bundle, read_manifest
from mgcc_runtime.contract import stages
from mgcc_runtime.denoise import denoise
from mgcc_runtime.engines import host_array
from mgcc_runtime.errors import BundleError
from mgcc_runtime.measure.similarity import relative_l2
from mgcc_runtime.measure.verify import verify
from tests.packages import needs

NAME = "tiny-gated"
UNETS = ("unet", "unet_plain")
FP32 = choose_recipe(Target.CPU, Precision.FP32)


@pytest.fixture(scope="module")
def gated() -> Iterator[None]:
    """The profile `tiny` with GLIGEN's gates in place of the layout map, and PLMS, which looks at four predictions."""
    tiny = get_profile("tiny")
    unet = replace(tiny.unet, grounding=Grounding.GLIGEN, prediction="epsilon")
    sampler = SamplerConfig("PNDMScheduler", "scaled_linear", 0.00085, 0.012, 8, 2.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config._PROFILES, NAME, replace(tiny, name=NAME, unet=unet, sampler=sampler))
        yield


@pytest.fixture(scope="module")
def built(gated: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildReport, BuildOptions]:
    root = tmp_path_factory.mktemp("gated")
    options = BuildOptions(NAME, FP32, root / "bundle", root / "cache")
    return build(options, lambda stage, step: None), options


def cached_bytes(options: BuildOptions, recipe: Recipe) -> int:
    """What the two graphs take in the cache, where each is whole."""
    mark = "fp32" if recipe == FP32 else f"{recipe.target}-{recipe.precision}"
    folders = [next(options.cache.glob(f"{NAME}-{name}-{mark}-*")) for name in UNETS]
    return sum(path.stat().st_size for folder in folders for path in folder.glob("*.onnx*"))


def bundled_bytes(root: Path) -> int:
    return sum(e.bytes for n, e in read_manifest(root).files.items() if n.startswith("unet"))


def shared_weights(root: Path) -> set[str]:
    """Names of unet_plain's weights that lie in unet's file."""
    tensors = onnx.load(root / "unet_plain.onnx", load_external_data=False).graph.initializer
    return {t.name for t in tensors for e in t.external_data if (e.key, e.value) == ("location", "unet.onnx.data")}


@pytest.mark.slow
def test_a_bundle_with_gates_verifies_and_is_smaller(built: tuple[BuildReport, BuildOptions]) -> None:
    report, options = built
    assert {f.name: f.detail for f in verify(options.out) if not f.passed} == {}
    bundle = Bundle.open(options.out)
    assert bundle.has("unet.onnx.data") and not bundle.has("unet_plain.onnx.data")
    found = {p.relative_to(options.out).as_posix() for p in options.out.rglob("*") if p.is_file()}
    assert found == {*bundle.manifest.files, "manifest.json"}
    sizes = {s.stage: s.bytes for s in report.stages}
    weights = {s.stage: s.weight_bytes for s in report.stages}
    assert sizes["unet"] + sizes["unet_plain"] == bundled_bytes(options.out)
    # all but biases and norms, of which a net this small has many, lie in the other's file
    assert cached_bytes(options, FP32) - bundled_bytes(options.out) > 0.9 * weights["unet_plain"]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
def test_the_runtime_walks_the_references_trajectory(built: tuple[BuildReport, BuildOptions], steps: int) -> None:
    """Four predictions back, by the bundle's own schedule and solver, from predictions that tell each other apart."""
    profile = get_profile(NAME)
    exact = compile_schedule(profile.sampler, profile.unet.prediction, steps)
    with Pipeline.load(built[1].out, threads=1) as pipeline:
        d, table = pipeline.bundle.manifest.dimensions, pipeline.schedule.table(steps)
        rng = np.random.default_rng(steps)
        shape = (table.evaluations + 1, 1, d.latent_channels, d.latent_px, d.latent_px)
        noise, *predictions = rng.standard_normal(shape, dtype=np.float32)
        found = [host_array(x) for x in denoise(table, noise, lambda i, x, t: predictions[i], pipeline.stages.advance)]
    assert d.solver_order == 4 and len(found) == len(exact.matrix)
    basis = np.stack([exact.init_scale * noise, *predictions]).astype(np.float64)
    for x, row in zip(found, exact.matrix, strict=True):
        assert relative_l2(x, np.tensordot(row, basis[: len(row)], axes=1)) < 5e-6


@pytest.mark.slow
def test_a_changed_byte_of_the_shared_file_is_refused(built: tuple[BuildReport, BuildOptions]) -> None:
    path = built[1].out / "unet.onnx.data"
    original = path.read_bytes()
    try:
        path.write_bytes(original[:5000] + bytes([original[5000] ^ 1]) + original[5001:])
        with pytest.raises(BundleError, match=r"unet\.onnx\.data is altered: SHA-256"):
            Bundle.open(built[1].out)
        path.write_bytes(original[:-1])
        with pytest.raises(BundleError, match=r"unet\.onnx\.data is truncated"):
            Bundle.open(built[1].out)
        path.unlink()
        with pytest.raises(BundleError, match=r"unet\.onnx\.data is missing"):
            Bundle.open(built[1].out)
    finally:
        path.write_bytes(original)
    Bundle.open(built[1].out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "precision"),
    [(Target.ORT_GPU, Precision.FP16), (Target.JETSON, Precision.INT8)],
)
def test_lower_graphs_share_too(
    built: tuple[BuildReport, BuildOptions], tmp_path: Path, target: Target, precision: Precision
) -> None:
    recipe = choose_recipe(target, precision)
    options = replace(built[1], recipe=recipe, out=tmp_path / "bundle", stages=UNETS)
    report = build(options, lambda stage, step: None)
    assert len(shared_weights(options.out)) > 20
    assert bundled_bytes(options.out) < 0.8 * cached_bytes(options, recipe)
    for spec in stages(read_manifest(options.out).dimensions):
        if spec.name not in UNETS:
            continue
        with np.load(options.out / "golden" / f"{spec.name}.npz", allow_pickle=False) as golden:
            feeds = {t.name: golden[f"in.{t.name}"] for t in spec.inputs}
            expected = golden["out.prediction"]
        (limit,) = [s.tolerance.relative_l2 for s in report.stages if s.stage == spec.name]
        (found,) = ort.InferenceSession(options.out / f"{spec.name}.onnx").run(["prediction"], feeds)
        assert relative_l2(found, expected) <= limit


@pytest.mark.slow
def test_other_readers_follow_a_graph_to_the_shared_file(
    built: tuple[BuildReport, BuildOptions], tmp_path: Path
) -> None:
    """TensorRT's parser, which a Jetson builds its engines with, and OpenVINO."""
    openvino = needs("openvino")
    root, spec = built[1].out, stages(read_manifest(built[1].out).dimensions)[5]
    assert spec.name == "unet_plain"
    with np.load(root / "golden" / "unet_plain.npz", allow_pickle=False) as golden:
        feeds, expected = {t.name: golden[f"in.{t.name}"] for t in spec.inputs}, golden["out.prediction"]
    compiled = openvino.Core().compile_model(str(root / "unet_plain.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert relative_l2(next(iter(compiled(feeds).values())), expected) <= 1e-3  # fp32 against fp32
    needs("tensorrt_rtx")
    engine = tmp_path / "unet_plain.engine"
    paths = (str(root / "unet_plain.onnx"), str(engine), f"{engine}.json")
    done = run_engine_job(EngineJob("tensorrt_rtx", "unet_plain", *paths, (), ""))
    assert done.bytes > bundled_bytes(root) / 2  # its own copy of the weights


def test_the_estimate_counts_shared_weights_once(gated: None) -> None:
    profile, engines = get_profile(NAME), choose_recipe(Target.RTX, Precision.FP32)
    graphs = estimate_build(profile, UNETS, FP32)
    alone = [estimate_build(profile, (name,), FP32) for name in UNETS]
    twice = sum(one.bundle_bytes for one in alone) - graphs.bundle_bytes
    assert twice > 4 * graphs.parameters["unet_plain"]
    more = estimate_build(profile, UNETS, engines).bundle_bytes - graphs.bundle_bytes
    assert more > 4 * graphs.parameters["unet_plain"]
