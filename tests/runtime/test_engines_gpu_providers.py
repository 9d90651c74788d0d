"""Which of ONNX Runtime's providers a GPU bundle runs on, and what is said when it is the CPU."""

import logging
import sys
from types import ModuleType

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from mgcc_runtime.contract import stage
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.engines.onnxruntime import OrtSession, OrtTensor
from mgcc_runtime.engines.onnxruntime_gpu import (
    _PLUGIN,
    CPU,
    TENSORRT,
    TENSORRT_RTX,
    _warn,
    choose_providers,
    plugged_in,
)
from tests.runtime.golden_data import example_inputs
from tests.runtime.tiny_bundle import DIMENSIONS, cache_names, make_stage

CUDA = "CUDAExecutionProvider"
FIXED, VARYING = (stage(DIMENSIONS, name) for name in ("vae_decoder", "llm"))


@pytest.mark.parametrize(
    ("installed", "spec", "chosen"),
    [
        ((CPU,), FIXED, (CPU,)),
        ((CUDA, CPU), FIXED, (CUDA, CPU)),
        ((TENSORRT, CUDA, CPU), FIXED, (TENSORRT, CUDA, CPU)),
        ((TENSORRT, CUDA, CPU), VARYING, (CUDA, CPU)),
        ((CPU, CUDA, TENSORRT_RTX, "AzureExecutionProvider"), VARYING, (TENSORRT_RTX, CUDA, CPU)),
    ],
)
def test_the_fastest_comes_first_and_the_cpu_last(installed, spec, chosen):
    """TensorRT's provider would build an engine for every token of a growing cache."""
    assert choose_providers(installed, spec) == chosen


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What a session is opened with where TensorRT's provider is installed; it is then opened on the CPU."""
    found = []
    plain = ort.InferenceSession

    def watched(path, settings, providers):
        found.append(providers)
        return plain(path, settings, providers=[CPU])

    monkeypatch.setenv("MGCC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr("onnxruntime.InferenceSession", watched)
    return found


def test_engines_are_kept_by_content(asked, tmp_path):
    """With other weights under the same names, another folder."""
    for seed in range(2):
        onnx.save(make_stage(FIXED, DIMENSIONS, seed=seed), tmp_path / "vae_decoder.onnx")
        open_session("onnxruntime_gpu", tmp_path / "vae_decoder.onnx", FIXED, EngineOptions()).close()
    folders = {providers[0][1]["trt_engine_cache_path"] for providers in asked}
    assert len(folders) == 2 and all(f.startswith(str(tmp_path / "cache")) for f in folders)
    assert [p[1:] for p in asked] == [[CUDA, CPU]] * 2


def test_a_provider_that_cannot_start_is_told(asked, tmp_path, caplog):
    _warn.cache_clear()
    onnx.save(make_stage(FIXED, DIMENSIONS), tmp_path / "vae_decoder.onnx")
    with caplog.at_level(logging.WARNING):
        session = open_session("onnxruntime_gpu", tmp_path / "vae_decoder.onnx", FIXED, EngineOptions())
    assert session.run(example_inputs(FIXED.inputs))["image"].shape == (1, 3, 32, 32)
    assert "stage vae_decoder fell back to the CPU" in caplog.text


def test_a_kept_cache_is_bound_to_its_memory(tmp_path):
    """The calls that leave a cache on the GPU, with the host's memory in its place, give the same values."""
    onnx.save(make_stage(VARYING, DIMENSIONS), tmp_path / "llm.onnx")
    plain = ort.InferenceSession(str(tmp_path / "llm.onnx"), providers=[CPU])
    bound, free = OrtSession(plain, VARYING, "cpu"), OrtSession(plain, VARYING)
    names, feeds = cache_names(DIMENSIONS), example_inputs(VARYING.inputs)
    keep = [p for _, p in names]
    for _ in range(3):
        theirs, ours = free.run(feeds, keep), bound.run(feeds, keep)
        assert set(ours.kept) == set(keep) and set(ours.arrays) == {"logits", "hidden_states"}
        for name, value in theirs.arrays.items():
            np.testing.assert_array_equal(ours[name], value)
        assert all(isinstance(ours.kept[name], OrtTensor) for name in keep)
        feeds = {"inputs_embeds": feeds["inputs_embeds"][:, :1], **{past: ours.kept[p] for past, p in names}}


@pytest.fixture
def plugin(monkeypatch, tmp_path):
    """A package like TensorRT-RTX's, which cannot be loaded without a driver: its device is ONNX Runtime's own CPU."""
    package = ModuleType(_PLUGIN)
    package.get_ep_name = lambda: CPU
    package.get_library_path = lambda: tmp_path / "provider.so"
    registered = []
    monkeypatch.setitem(sys.modules, _PLUGIN, package)
    monkeypatch.setattr("onnxruntime.register_execution_provider_library", lambda *a: registered.append(a))
    monkeypatch.setattr("mgcc_runtime.engines.onnxruntime_gpu.provider_options", lambda *_: {})  # the CPU has none
    monkeypatch.setenv("MGCC_CACHE", str(tmp_path / "cache"))
    plugged_in.cache_clear()
    yield registered
    plugged_in.cache_clear()


def test_a_plugged_in_provider_is_registered_once_and_runs(plugin, tmp_path, caplog):
    onnx.save(make_stage(FIXED, DIMENSIONS), tmp_path / "vae_decoder.onnx")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            session = open_session("onnxruntime_gpu", tmp_path / "vae_decoder.onnx", FIXED, EngineOptions())
            assert session.run(example_inputs(FIXED.inputs))["image"].shape == (1, 3, 32, 32)
            session.close()
    assert plugin == [(CPU, str(tmp_path / "provider.so"))]
    assert not caplog.records


def test_a_plug_in_that_cannot_be_loaded_is_told(plugin, tmp_path, caplog, monkeypatch):
    def fail(*_):
        raise Fail("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr("onnxruntime.register_execution_provider_library", fail)
    _warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert plugged_in() == ()
    assert "cannot be used (libcuda.so.1: cannot open shared object file); check the GPU's driver" in caplog.text


def test_without_a_gpu_it_runs_on_the_cpu_and_says_so_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["AzureExecutionProvider", CPU])
    _warn.cache_clear()
    spec = stage(DIMENSIONS, "vae_decoder")
    onnx.save(make_stage(spec, DIMENSIONS), tmp_path / "vae_decoder.onnx")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            session = open_session("onnxruntime_gpu", tmp_path / "vae_decoder.onnx", spec, EngineOptions())
            assert session.run(example_inputs(spec.inputs))["image"].shape == (1, 3, 32, 32)
            session.close()
    (record,) = caplog.records
    assert "has no GPU provider here and runs it on the CPU" in record.getMessage()
    assert "mgcc-edge[gpu]" in record.getMessage()
