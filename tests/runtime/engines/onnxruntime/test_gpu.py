"""Which of ONNX Runtime's providers a GPU bundle runs on, and what is said when it is the CPU."""

import logging
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail

from mgcc_runtime.contract import stage
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.engines.onnxruntime import gpu
from mgcc_runtime.engines.onnxruntime.gpu import (
    _PLUGIN,
    CPU,
    PREFERRED,
    TENSORRT,
    TENSORRT_RTX,
    _warn,
    choose_providers,
    plugged_in,
    provider_options,
)
from mgcc_runtime.engines.onnxruntime.session import OrtSession, OrtTensor
from mgcc_runtime.errors import ContractError, EngineError
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
        ((TENSORRT, TENSORRT_RTX, CUDA, CPU), FIXED, (TENSORRT_RTX, CUDA, CPU)),  # never both: refused
    ],
)
def test_the_fastest_comes_first_and_the_cpu_last(installed, spec, chosen):
    """TensorRT's provider would build an engine for every token of a growing cache."""
    assert choose_providers(installed, spec) == chosen


@pytest.mark.parametrize("name", PREFERRED)
def test_no_precision_is_asked_for(name, tmp_path):
    """TensorRT's provider takes a graph as strongly typed only as long as no option names a precision."""
    assert not [option for option in provider_options(name, tmp_path) if "fp16" in option or "int8" in option]


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What a session is opened with where TensorRT's provider is installed; it is then opened on the CPU."""
    found = []
    plain = ort.InferenceSession

    def watched(path, settings, providers, **_):
        found.append(providers)
        return plain(path, settings, providers=[CPU])

    monkeypatch.setenv("MGCC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(gpu, "tensorrt_is_here", lambda: True)
    monkeypatch.setattr("onnxruntime.InferenceSession", watched)
    return found


def test_tensorrt_is_not_asked_for_where_its_library_is_absent(asked, tmp_path, monkeypatch):
    """onnxruntime-gpu lists its provider on every machine, and complains on stderr when asked for it."""
    monkeypatch.setattr(gpu, "tensorrt_is_here", lambda: False)
    onnx.save(make_stage(FIXED, DIMENSIONS), tmp_path / "vae_decoder.onnx")
    open_session("onnxruntime_gpu", tmp_path / "vae_decoder.onnx", FIXED, EngineOptions()).close()
    assert asked == [[CUDA, CPU]]


@pytest.mark.parametrize("major", [None, *gpu._TENSORRT_MAJORS])
def test_any_tensorrt_that_a_provider_may_be_linked_with_is_found(major, monkeypatch):
    def load(name):
        if str(major) not in name:
            raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", load)
    gpu.tensorrt_is_here.cache_clear()
    assert gpu.tensorrt_is_here() is (major is not None)
    gpu.tensorrt_is_here.cache_clear()


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


@pytest.fixture
def refusing(monkeypatch, tmp_path):
    """Opens on the CPU whatever is asked for, but not for the first of the providers in `refused`; lists the asked."""
    plain, asked, refused = ort.InferenceSession, [], set()

    def watched(path, settings, providers=None, **others):
        names = [p if isinstance(p, str) else p[0] for p in providers] if providers else [TENSORRT_RTX]
        asked.append(names)
        if names[0] in refused:
            raise EPFail(f"no engine for {names[0]}\nmore of it")
        return plain(path, ort.SessionOptions(), providers=[CPU], **others)

    monkeypatch.setenv("MGCC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(gpu, "tensorrt_is_here", lambda: True)
    monkeypatch.setattr("onnxruntime.InferenceSession", watched)
    _warn.cache_clear()
    return asked, refused


@pytest.mark.parametrize(
    ("failing", "installed", "tried"),
    [
        ([TENSORRT_RTX], [CPU], [[TENSORRT_RTX], [CPU]]),
        ([TENSORRT_RTX], [CUDA, CPU], [[TENSORRT_RTX], [CUDA, CPU]]),
        ([TENSORRT_RTX, TENSORRT], [TENSORRT, CUDA, CPU], [[TENSORRT_RTX], [TENSORRT, CUDA, CPU], [CUDA, CPU]]),
        ([TENSORRT_RTX, CUDA], [CUDA, CPU], [[TENSORRT_RTX], [CUDA, CPU], [CPU]]),
    ],
)
def test_the_next_provider_is_tried_and_told(
    plugin, refusing, tmp_path, caplog, capsys, monkeypatch, failing, installed, tried
):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: installed)
    asked, refused = refusing
    refused.update(failing)
    onnx.save(make_stage(FIXED, DIMENSIONS), tmp_path / "vae_decoder.onnx")
    with caplog.at_level(logging.WARNING):
        session = open_session("onnxruntime_gpu", tmp_path / "vae_decoder.onnx", FIXED, EngineOptions())
    assert session.run(example_inputs(FIXED.inputs))["image"].shape == (1, 3, 32, 32)
    assert asked == tried and session.providers == (CPU,)
    told = " nor with ".join(f"{name} (no engine for {name})," for name in failing)
    (record,) = caplog.records
    assert f"stage vae_decoder could not be opened with {told} and runs on {CPU}" in record.getMessage()
    assert capsys.readouterr().out == ""  # where a command's JSON goes


def test_what_no_provider_opens_is_the_cpus_error(plugin, refusing, tmp_path):
    asked, refused = refusing
    refused.update({TENSORRT_RTX, TENSORRT, CUDA, CPU})
    onnx.save(make_stage(FIXED, DIMENSIONS), tmp_path / "vae_decoder.onnx")
    with pytest.raises(EngineError, match=f"stage vae_decoder cannot be opened: no engine for {CPU};"):
        open_session("onnxruntime_gpu", tmp_path / "vae_decoder.onnx", FIXED, EngineOptions())
    assert [names[0] for names in asked] == [TENSORRT_RTX, TENSORRT, CUDA, CPU]


def test_a_graph_of_another_stage_is_tried_once(plugin, refusing, tmp_path):
    onnx.save(make_stage(VARYING, DIMENSIONS), tmp_path / "vae_decoder.onnx")
    with pytest.raises(ContractError):
        open_session("onnxruntime_gpu", tmp_path / "vae_decoder.onnx", FIXED, EngineOptions())
    assert len(refusing[0]) == 1


@pytest.mark.parametrize(
    ("busy", "on"), [([CPU], (CPU,)), ([CUDA, CPU, CUDA], (CUDA, CPU)), ([CUDA], (CUDA,)), (None, (CUDA, CPU))]
)
def test_a_stage_runs_on_what_has_nodes_of_it(busy, on):
    """A provider that was started and got nothing does nothing; an old ONNX Runtime cannot say so."""
    started = SimpleNamespace(get_providers=lambda: [CUDA, CPU], get_inputs=list, get_outputs=list)
    if busy is not None:
        started.get_provider_graph_assignment_info = lambda: [SimpleNamespace(ep_name=name) for name in busy]
    assert OrtSession(started, FIXED).providers == on


def test_which_nodes_a_provider_got_is_recorded(plugin, tmp_path):
    """With the plug-in of the CPU's own name, which has all of them: the real session has to be able to say so."""
    onnx.save(make_stage(FIXED, DIMENSIONS), tmp_path / "vae_decoder.onnx")
    session = open_session("onnxruntime_gpu", tmp_path / "vae_decoder.onnx", FIXED, EngineOptions())
    if not hasattr(session._engine._session, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime does not know it; with that of constraints.txt this runs")
    assert {part.ep_name for part in session._engine._session.get_provider_graph_assignment_info()} == {CPU}


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


def test_a_tensor_of_other_memory_is_copied_for_a_session_without_it(tmp_path):
    """Latents that a UNet on the GPU left there, for a solver that had to go to the CPU; never the other way."""
    onnx.save(make_stage(FIXED, DIMENSIONS), tmp_path / "vae_decoder.onnx")
    plain = ort.InferenceSession(str(tmp_path / "vae_decoder.onnx"), providers=[CPU])
    bound, free = OrtSession(plain, FIXED, "cpu"), OrtSession(plain, FIXED)
    (latents,) = example_inputs(FIXED.inputs).values()
    away = OrtTensor(ort.OrtValue.ortvalue_from_numpy(latents), "cpu")
    here = OrtTensor(away.value)
    assert free._value("latents", away) is not away.value
    for session, tensor in ((bound, away), (bound, here), (free, here)):
        assert session._value("latents", tensor) is tensor.value
    np.testing.assert_array_equal(free.run({"latents": away}, ())["image"], bound.run({"latents": away}, ())["image"])


@pytest.fixture
def plugin(monkeypatch, tmp_path):
    """A package like TensorRT-RTX's, which cannot be loaded without a driver: its device is ONNX Runtime's own CPU."""
    package = ModuleType(_PLUGIN)
    package.get_ep_name = lambda: CPU
    package.get_library_path = lambda: tmp_path / "provider.so"
    registered = []
    monkeypatch.setitem(sys.modules, _PLUGIN, package)
    monkeypatch.setattr("onnxruntime.register_execution_provider_library", lambda *a: registered.append(a))
    monkeypatch.setattr("mgcc_runtime.engines.onnxruntime.gpu.provider_options", lambda *_: {})  # the CPU has none
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
