"""One suite for every engine: whatever plays a stage, the rest of the runtime sees the same.

Twice for those of a GPU: each release of TensorRT and TensorRT-RTX on the host's memory (host_tensorrt.py) and
`onnxruntime_gpu` on what it finds, which runs everywhere; and on a real GPU, with engines that the libraries build,
which skips where there is none.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

from mgcc_runtime.engines import EngineOptions, KeptTensor, open_session
from mgcc_runtime.errors import ClosedError, ContractError, EngineError, StageValueError
from mgcc_runtime.measure.similarity import relative_l2
from tests.packages import needs
from tests.runtime.engine_makers import build_plan, spec_of, write_half_onnx, write_onnx, write_plan
from tests.runtime.golden_data import example_inputs
from tests.runtime.host_tensorrt import host_gpu_with
from tests.runtime.releases import RELEASES
from tests.runtime.tiny_bundle import DIMENSIONS, Graph, assemble, cache_names, make_stage

ENGINES = ("onnxruntime", "openvino", "openvino_bf16", "onnxruntime_gpu", "tensorrt", "tensorrt_rtx")
LIBRARIES = ("tensorrt", "tensorrt_rtx")
OF_A_GPU = ("onnxruntime_gpu", *LIBRARIES)
#: Engine, the release that it is played as on the host's memory, and whether the real library runs on a GPU.
RUNS = [
    *(pytest.param((engine, None, False), id=engine) for engine in ENGINES if engine not in LIBRARIES),
    *(pytest.param((release.library, release, False), id=str(release)) for release in RELEASES),
    *(pytest.param((engine, None, True), id=f"{engine}-real", marks=pytest.mark.gpu) for engine in OF_A_GPU),
]
#: fp32 against fp32; an fp16 graph rounds to 11 bits at each of a handful of operators, bf16 to 8.
LIMITS = {
    "onnxruntime": 1e-5,
    "openvino": 1e-5,
    "openvino_bf16": 3e-2,
    "onnxruntime_gpu": 5e-3,
    "tensorrt": 5e-3,
    "tensorrt_rtx": 5e-3,
}


@pytest.fixture(params=RUNS)
def open_stage(request, tmp_path, monkeypatch):
    """Opens a stage by name with the engine of this run, from its own graph or the one given."""
    engine, release, real = request.param
    monkeypatch.setenv("MGCC_CACHE", str(tmp_path / "cache"))
    if real:
        skip_without(engine)
    opened = []

    def open_it(name, model=None):
        path = write_plan(tmp_path, name, release, model) if release else write_stage(tmp_path, name, engine, model)
        opened.append(open_session(engine, path, spec_of(name), EngineOptions(threads=1)))
        if real:
            assert not all("CPU" in provider for provider in opened[-1].providers)
        return opened[-1]

    open_it.limit = LIMITS[engine]
    with host_gpu_with(release, monkeypatch, tmp_path) if release else contextlib.nullcontext():
        yield open_it
        for session in opened:
            session.close()


def skip_without(engine):
    """Skip where the engine's package is not there, or has nothing for a GPU."""
    if engine == "onnxruntime_gpu":
        from mgcc_runtime.engines.onnxruntime.gpu import CPU, choose_providers, ort, plugged_in

        if not plugged_in() and choose_providers(ort.get_available_providers(), spec_of("llm")) == (CPU,):
            pytest.skip("this ONNX Runtime has no provider for a GPU: pip install onnxruntime-gpu")
    else:
        needs(engine)


def write_stage(folder, name, engine, model):
    """The stage's file as the engine takes it; those of TensorRT are built by the library."""
    if engine in ("onnxruntime", "openvino", "openvino_bf16"):
        return write_onnx(folder, name, model)
    if engine == "onnxruntime_gpu":
        return write_half_onnx(folder, name, model)
    return build_plan(folder, name, engine, model)


@pytest.mark.parametrize("name", ["vision_encoder", "llm", "refiner", "grounder", "unet", "solver", "vae_decoder"])
def test_every_stage_agrees_with_onnx_reference(open_stage, name):
    session = open_stage(name)
    feeds = example_inputs(session.spec.inputs)
    names = [t.name for t in session.spec.outputs]
    expected = onnx.reference.ReferenceEvaluator(make_stage(session.spec, DIMENSIONS)).run(names, feeds)
    found = session.run(feeds)
    for tensor, value in zip(session.spec.outputs, expected, strict=True):
        assert found[tensor.name].dtype == np.dtype(tensor.dtype.value)
        assert relative_l2(found[tensor.name], value) <= open_stage.limit, tensor.name


def test_a_kept_cache_goes_on_like_a_copied_one(open_stage):
    session = open_stage("llm")
    names = cache_names(DIMENSIONS)
    feeds = example_inputs(session.spec.inputs)
    first = session.run(feeds, keep=[present for _, present in names])
    assert set(first.arrays) == {"logits", "hidden_states"}
    kept = first.kept[names[0][1]]
    assert isinstance(kept, KeptTensor)
    assert kept.dtype == np.float32
    copied = session.run(feeds)
    np.testing.assert_array_equal(kept.numpy(), copied[names[0][1]])
    step = feeds["inputs_embeds"][:, :1]
    by_kept = session.run({"inputs_embeds": step, **{past: first.kept[present] for past, present in names}})
    by_copy = session.run({"inputs_embeds": step, **{past: copied[present] for past, present in names}})
    np.testing.assert_array_equal(by_kept["logits"], by_copy["logits"])


def test_an_old_cache_stays_usable_after_it_was_extended(open_stage):
    """Dropping the [IMG] positions is going on from an older cache: later steps must not write over it."""
    session = open_stage("llm")
    names = cache_names(DIMENSIONS)
    present = [p for _, p in names]
    feeds = example_inputs(session.spec.inputs)
    old = session.run(feeds, keep=present)
    step = feeds["inputs_embeds"][:, :1]
    first = session.run({"inputs_embeds": step, **{past: old.kept[p] for past, p in names}}, keep=present)
    logits, state = np.array(first["logits"]), first
    for _ in range(4):
        state = session.run({"inputs_embeds": step, **{past: state.kept[p] for past, p in names}}, keep=present)
    again = session.run({"inputs_embeds": step, **{past: old.kept[p] for past, p in names}}, keep=present)
    np.testing.assert_array_equal(again["logits"], logits)


def test_an_empty_cache_is_a_tensor_too(open_stage):
    session = open_stage("llm")
    feeds = example_inputs(session.spec.inputs)
    for past, _ in cache_names(DIMENSIONS):
        feeds[past] = feeds[past][:, :, :0]
    found = session.run(feeds)
    assert found["present.0.key"].shape[2] == feeds["inputs_embeds"].shape[1]


def test_a_stage_of_fixed_shape_gives_the_same_many_times(open_stage):
    """The second run captures a graph where there are any, the later ones replay it: with new inputs each time."""
    session = open_stage("unet")
    reference = onnx.reference.ReferenceEvaluator(make_stage(session.spec, DIMENSIONS))
    for seed in range(4):
        feeds = example_inputs(session.spec.inputs)
        feeds["latents"] = np.random.default_rng(seed).normal(0, 1, feeds["latents"].shape).astype(np.float32)
        assert relative_l2(session.run(feeds)["prediction"], reference.run(None, feeds)[0]) <= open_stage.limit


def test_kept_latents_go_on_like_copied_ones(open_stage):
    """A whole denoising loop in the engine's memory; what was kept in it before is still there afterwards."""
    unet, solver = open_stage("unet"), open_stage("solver")
    given = example_inputs(unet.spec.inputs)
    coefficients = np.array([0.9, -0.2, 0.4, 0.1], np.float32)

    def step(host, latents, predictions):
        feeds = given | {"latents": latents[0], "timestep": np.array([900 / len(predictions)], np.float32)}
        prediction = unet.run(feeds, keep=["prediction"]).kept["prediction"]
        predictions = [host(prediction), *predictions][:2]
        terms = {f"latents.{i}": x for i, x in enumerate(latents)}
        terms |= {f"prediction.{i}": predictions[min(i, len(predictions) - 1)] for i in range(2)}
        found = solver.run({**terms, "coefficients": coefficients}, keep=["next_latents"])
        assert found["finite"].tolist() == [True]
        return [host(found.kept["next_latents"]), latents[0]], predictions

    def loop(host):
        latents, predictions = [given["latents"]] * 2, [given["latents"]]
        iterates = []
        for _ in range(5):
            latents, predictions = step(host, latents, predictions)
            iterates.append(latents[0])
        return iterates

    kept, copied = loop(lambda tensor: tensor), loop(lambda tensor: tensor.numpy())
    assert all(isinstance(x, KeptTensor) and x.dtype == np.float32 for x in kept)
    for ours, theirs in zip(kept, copied, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)
    assert relative_l2(copied[-1], copied[0]) > 0.1  # it went somewhere


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_solver_says_when_latents_are_not_finite(open_stage, bad):
    session = open_stage("solver")
    feeds = example_inputs(session.spec.inputs)
    assert session.run(feeds, keep=["next_latents"])["finite"].tolist() == [True]
    feeds["prediction.0"][0, 1, 2, 3] = bad
    assert session.run(feeds, keep=["next_latents"])["finite"].tolist() == [False]


def test_the_hosts_solver_agrees_with_onnx_reference(tmp_path):
    spec = spec_of("solver")
    session = open_session("host", tmp_path / "solver.onnx", spec, EngineOptions())
    feeds = example_inputs(spec.inputs)
    first = feeds["latents.0"].copy()
    latents, finite = onnx.reference.ReferenceEvaluator(make_stage(spec, DIMENSIONS)).run(None, feeds)
    found = session.run(feeds, keep=["next_latents"])
    assert relative_l2(found.kept["next_latents"].numpy(), latents) <= LIMITS["onnxruntime"]
    assert found["finite"].tolist() == finite.tolist() == [True]
    # what it is given stays as it is, and what it gave, whatever becomes of a copy
    kept = found.kept["next_latents"]
    kept.numpy()[:] = 0
    again = session.run(feeds | {"latents.0": kept})["next_latents"]
    assert relative_l2(again, latents) > 0.01
    assert relative_l2(kept.numpy(), latents) <= LIMITS["onnxruntime"]
    np.testing.assert_array_equal(feeds["latents.0"], first)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_the_hosts_solver_says_when_latents_are_not_finite(tmp_path, recwarn, bad):
    session = open_session("host", tmp_path / "solver.onnx", spec_of("solver"), EngineOptions())
    feeds = example_inputs(session.spec.inputs)
    feeds["prediction.0"][0, 1, 2, 3], feeds["coefficients"][2] = bad, 2.0
    assert session.run(feeds, keep=["next_latents"])["finite"].tolist() == [False]
    assert not recwarn.list


def test_the_host_plays_no_other_stage(tmp_path):
    with pytest.raises(EngineError, match=r"stage unet of .* is no stage for the engine host, which has solver alone"):
        open_session("host", tmp_path / "unet.onnx", spec_of("unet"), EngineOptions())


def test_stages_take_turns(open_stage):
    unet, vae = open_stage("unet"), open_stage("vae_decoder")
    feeds, latents = example_inputs(unet.spec.inputs), example_inputs(vae.spec.inputs)
    first, image = unet.run(feeds)["prediction"], vae.run(latents)["image"]
    for _ in range(3):
        np.testing.assert_array_equal(unet.run(feeds)["prediction"], first)
        np.testing.assert_array_equal(vae.run(latents)["image"], image)


def test_several_threads_may_run_a_stage(open_stage):
    session = open_stage("grounder")
    feeds = [example_inputs(session.spec.inputs) for _ in range(8)]
    for i, one in enumerate(feeds):
        one["context_features"] = one["context_features"] * (i + 1)
    alone = [session.run(one)["boxes"] for one in feeds]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: session.run(one)["boxes"], feeds))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_wrong_inputs_are_named(open_stage):
    session = open_stage("vae_decoder")
    with pytest.raises(ContractError, match="got no latents and unknown latent"):
        session.run({"latent": np.zeros((1, 2, 4, 4), np.float32)})
    with pytest.raises(ContractError, match=r"input latents of stage vae_decoder is .*expected float32 \(1, 2, 4, 4\)"):
        session.run({"latents": np.zeros((1, 2, 4, 5), np.float32)})


def test_infinity_names_the_stage(open_stage):
    g = Graph(np.random.default_rng(0))
    kernel = g.const(g.rng.normal(0, 1, (2, 3, 8, 8)))
    raised = g.op("Div", g.op("ConvTranspose", "latents", kernel, strides=[8, 8]), g.const(0.0))
    g.op("Identity", raised, out="image")
    session = open_stage("vae_decoder", assemble(spec_of("vae_decoder"), g))
    with pytest.raises(StageValueError, match=r"stage vae_decoder gave .* values of NaN or infinity"):
        session.run(example_inputs(session.spec.inputs))


def test_a_closed_stage_says_so_and_can_be_closed_again(open_stage):
    session = open_stage("vae_decoder")
    session.close()
    session.close()
    with pytest.raises(ClosedError):
        session.run(example_inputs(session.spec.inputs))


def test_a_graph_of_another_stage_is_refused(open_stage):
    with pytest.raises(ContractError, match="stage vae_decoder"):
        open_stage("vae_decoder", make_stage(spec_of("vision_encoder"), DIMENSIONS))
