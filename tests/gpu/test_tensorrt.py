"""On an NVIDIA GPU: engines are built, loaded, launched, captured and replayed for real. Else it skips, visibly.

What every engine has to keep to is in tests/runtime/engines/test_conformance.py, which runs there, too.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest

from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines import EngineOptions, Session, open_session
from mgcc_runtime.engines.tensorrt.cuda_memory import free_memory_bytes
from mgcc_runtime.measure.similarity import relative_l2
from tests.runtime.engine_makers import build_plan, spec_of
from tests.runtime.golden_data import example_inputs
from tests.runtime.tiny_bundle import DIMENSIONS, cache_names, make_stage

pytestmark = pytest.mark.gpu

LIBRARIES = [name for name in ("tensorrt_rtx", "tensorrt") if importlib.util.find_spec(name)] or ["tensorrt_rtx"]
HALF_L2 = 5e-3  # a handful of operators, each rounded to 11 bits


@pytest.fixture(params=LIBRARIES)
def open_stage(request, tmp_path, monkeypatch):
    """Builds a stage's engine on this machine and opens it."""
    monkeypatch.setenv("MGCC_CACHE", str(tmp_path / "cache"))
    opened: list[Session] = []

    def open_it(name: str) -> Session:
        engine = build_plan(tmp_path, name, request.param)
        opened.append(open_session(request.param, engine, spec_of(name), EngineOptions()))
        return opened[-1]

    yield open_it
    for session in opened:
        session.close()


def reference(name: str, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    names = [t.name for t in spec_of(name).outputs]
    found: list[np.ndarray] = onnx.reference.ReferenceEvaluator(make_stage(spec_of(name), DIMENSIONS)).run(names, feeds)
    return found


@pytest.mark.parametrize("name", ["vision_encoder", "llm", "refiner", "grounder", "unet", "solver", "vae_decoder"])
def test_values(open_stage, name):
    session, feeds = open_stage(name), example_inputs(spec_of(name).inputs)
    found = session.run(feeds)
    for tensor, expected in zip(session.spec.outputs, reference(name, feeds), strict=True):
        assert relative_l2(found[tensor.name], expected) <= HALF_L2, tensor.name


def test_a_replayed_graph_reads_new_inputs(open_stage):
    session, feeds = open_stage("unet"), example_inputs(spec_of("unet").inputs)
    for seed in range(4):
        feeds["latents"] = np.random.default_rng(seed).normal(0, 1, feeds["latents"].shape).astype(np.float32)
        assert relative_l2(session.run(feeds)["prediction"], reference("unet", feeds)[0]) <= HALF_L2


def test_the_cache_goes_on_on_the_gpu(open_stage):
    session, feeds = open_stage("llm"), example_inputs(spec_of("llm").inputs)
    names = cache_names(DIMENSIONS)
    kept = session.run(feeds, keep=[p for _, p in names]).kept
    step = {"inputs_embeds": feeds["inputs_embeds"][:, :1]}
    by_kept = session.run(step | {past: kept[p] for past, p in names})["logits"]
    by_copy = session.run(step | {past: kept[p].numpy() for past, p in names})["logits"]
    np.testing.assert_array_equal(by_kept, by_copy)


def test_decode_steps_are_replayed_when_their_length_comes_back(open_stage):
    """Four texts at the same lengths: launched, captured, replayed twice; each step held against one on a copy."""
    session, feeds = open_stage("llm"), example_inputs(spec_of("llm").inputs)
    names = cache_names(DIMENSIONS)
    present = [p for _, p in names]
    for seed in range(4):
        rng, state = np.random.default_rng(seed), session.run(feeds, keep=present).kept
        for _ in range(4):
            step = {"inputs_embeds": rng.normal(0, 1, (1, 1, DIMENSIONS.hidden)).astype(np.float32)}
            by_copy = session.run(step | {past: state[p].numpy() for past, p in names})["logits"]
            outputs = session.run(step | {past: state[p] for past, p in names}, keep=present)
            assert relative_l2(outputs["logits"], by_copy) <= HALF_L2
            state = outputs.kept
    assert len(session._engine._steps.graphs) == 3  # the first step reads a cache that lies elsewhere each time


def test_memory_is_given_back(open_stage):
    session, feeds = open_stage("llm"), example_inputs(spec_of("llm").inputs)
    names = cache_names(DIMENSIONS)
    state = session.run(feeds, keep=[p for _, p in names])
    free = free_memory_bytes(Device.named())
    for _ in range(50):
        step = {"inputs_embeds": feeds["inputs_embeds"][:, :1]}
        session.run(step | {past: state.kept[p] for past, p in names}, keep=[p for _, p in names])
    assert free - free_memory_bytes(Device.named()) < 16 * 2**20


def test_kernels_are_kept(open_stage, tmp_path):
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("only TensorRT-RTX compiles kernels on the device: pip install 'mgcc-edge[rtx]'")
    session = open_stage("vae_decoder")
    session.run(example_inputs(session.spec.inputs))
    session.close()
    assert [p.stat().st_size > 0 for p in Path(tmp_path / "cache" / "kernels").iterdir()] == [True]


def test_the_device_has_a_name():
    device = Device.first()
    assert device.name and float(device.compute_capability) >= 5
