"""The TensorRT engine short of a launch: what it loads and refuses, its memory, its graphs, and the names it calls."""

from __future__ import annotations

import inspect
import json
import logging
import re
import sys
import threading

import numpy as np
import pytest

from mgcc_runtime.contract import DType, stages
from mgcc_runtime.engines import cuda
from mgcc_runtime.engines.device_memory import ALIGNMENT, NUMPY_TYPES, SlabPlan, slab_size
from mgcc_runtime.engines.engine_record import ProfileRecord, read_record, record_path
from mgcc_runtime.engines.tensorrt import specialisation
from mgcc_runtime.errors import BundleError, ContractError, EngineError, StageMemoryError
from tests.runtime import host_gpu
from tests.runtime.engine_makers import VERSION, open_it, write_plan
from tests.runtime.golden_data import example_inputs
from tests.runtime.tiny_bundle import DIMENSIONS, cache_names

LIBRARIES = ("tensorrt", "tensorrt_rtx")


@pytest.mark.parametrize("library", LIBRARIES)
def test_another_version_is_refused_before_loading(host, tmp_path, library):
    path = write_plan(tmp_path, "vae_decoder", library, version="9.8.6")
    name = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}[library]
    with pytest.raises(BundleError, match=rf"built by {name} 9\.8\.6, this machine has {VERSION}.*build_engines\.py"):
        open_it(path, library)
    assert not host.blocks


@pytest.mark.parametrize("library", LIBRARIES)
def test_another_platform_is_refused(host, tmp_path, library):
    path = write_plan(tmp_path, "vae_decoder", library, platform="linux-riscv64")
    with pytest.raises(BundleError, match="built for linux-riscv64, this machine is"):
        open_it(path, library)


@pytest.mark.parametrize(
    ("library", "capability", "message"),
    [
        ("tensorrt", "8.7", r"compute capability 8\.7, .* has 8\.9; rebuild it on this device"),
        ("tensorrt_rtx", "12.0", r"from compute capability 12\.0 on, .* has 8\.9; use a newer GPU"),
    ],
)
def test_another_gpu_is_refused(host, tmp_path, library, capability, message):
    path = write_plan(tmp_path, "vae_decoder", library, compute_capability=capability)
    with pytest.raises(BundleError, match=message):
        open_it(path, library)


def test_compute_capabilities_are_numbers_not_texts(host, tmp_path):
    """12.0 is newer than 8.9, though the text comes before."""
    host.capability = (12, 0)
    open_it(write_plan(tmp_path, "vae_decoder", "tensorrt_rtx", compute_capability="8.9"), "tensorrt_rtx").close()


def test_the_header_is_asked_about(host, tmp_path, monkeypatch):
    bad = host_gpu.Diagnostics.VERSION_MISMATCH | host_gpu.Diagnostics.OLD_CUDA_DRIVER
    library = host_gpu.host_tensorrt(host, rtx=True, version=VERSION, diagnosis=int(bad))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", library)
    with pytest.raises(BundleError, match="another TensorRT-RTX version and the CUDA driver is too old"):
        open_it(write_plan(tmp_path, "vae_decoder", "tensorrt_rtx"), "tensorrt_rtx")


def test_an_engine_without_its_record_is_refused(host, tmp_path):
    path = write_plan(tmp_path, "vae_decoder", "tensorrt")
    record_path(path).unlink()
    with pytest.raises(BundleError, match=r"has no record vae_decoder\.engine\.json"):
        open_it(path, "tensorrt")


@pytest.mark.parametrize("change", [{"schema": 2}, {"profiles": 3}, {"inputs": [{"name": "x"}]}])
def test_a_record_of_another_form_is_refused(host, tmp_path, change):
    path = write_plan(tmp_path, "vae_decoder", "tensorrt")
    values = json.loads(record_path(path).read_text()) | change
    record_path(path).write_text(json.dumps(values))
    with pytest.raises(BundleError, match="engine record"):
        open_it(path, "tensorrt")


@pytest.mark.parametrize(
    ("library", "way_out"),
    [("tensorrt", r"comes with JetPack .*python3-libnvinfer"), ("tensorrt_rtx", r"pip install 'mgcc-edge\[rtx\]'")],
)
def test_a_missing_library_is_named_with_the_way_to_get_it(host, tmp_path, monkeypatch, library, way_out):
    monkeypatch.setitem(sys.modules, library, None)
    needs = rf"stage vae_decoder needs the engine {library}, whose package {library} cannot be imported .*{way_out}"
    with pytest.raises(EngineError, match=needs) as caught:
        open_it(write_plan(tmp_path, "vae_decoder", library), library)
    assert "\n" not in str(caught.value) and "mgcc verify" not in str(caught.value)


@pytest.mark.parametrize(
    ("library", "named"),
    [(a, b) for a in LIBRARIES for b in ("a_module_of_the_bundle", *LIBRARIES) if a != b],
)
def test_only_the_library_that_the_manifest_names_is_imported(host, tmp_path, monkeypatch, library, named):
    (tmp_path / "a_module_of_the_bundle.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = write_plan(tmp_path, "vae_decoder", library)
    record_path(path).write_text(json.dumps(json.loads(record_path(path).read_text()) | {"library": named}))
    monkeypatch.setitem(sys.modules, library, None)  # neither is that one, before the record fits
    with pytest.raises(BundleError, match=rf"built by '{named}' as its record says, the manifest names {library};"):
        open_it(path, library)


def test_no_driver_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "_LIBRARIES", ("libno-such-driver.so",))
    cuda.driver.cache_clear()
    with pytest.raises(EngineError, match="has no CUDA driver"):
        cuda.driver()


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_fixed_stage_is_captured_once_and_replayed(host, tmp_path, library):
    session = open_it(write_plan(tmp_path, "unet", library), library, "unet")
    feeds = example_inputs(session.spec.inputs)
    for _ in range(5):
        session.run(feeds)
    assert host.calls.count("cuStreamBeginCapture_v2") == 1
    assert host.launches == 4
    session.close()


@pytest.fixture(params=["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "TensorRT"])
def no_capture(request, host, monkeypatch):
    """A GPU that captures nothing: by the driver, or because TensorRT cannot queue its work meanwhile."""
    if request.param == "TensorRT":
        execute = host_gpu.HostContext.execute_async_v3
        monkeypatch.setattr(
            host_gpu.HostContext, "execute_async_v3",
            lambda self, stream: host.capturing is None and execute(self, stream),
        )  # fmt: skip
    else:
        host.fail[request.param] = 900
    return host


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_engine_that_cannot_be_captured_is_launched_plainly(no_capture, tmp_path, library, caplog):
    host, session = no_capture, open_it(write_plan(tmp_path, "unet", library), library, "unet")
    feeds = example_inputs(session.spec.inputs)
    with caplog.at_level(logging.WARNING):
        found = [session.run(feeds)["prediction"] for _ in range(5)]
    assert all(np.array_equal(one, found[0]) for one in found)
    assert (host.calls.count("cuStreamBeginCapture_v2"), host.launches) == (1, 0)
    assert len(caplog.records) == 1 and "stage unet cannot be recorded as a CUDA graph" in caplog.text
    session.close()
    assert host.calls.count("cuGraphDestroy") == len(host.graphs) and not host.blocks  # nothing was left behind


def test_loading_waits_for_a_capture(host, tmp_path, monkeypatch):
    """What a second pipeline queues in the one stream while it loads would become part of the graph, or spoil it."""
    unet = open_it(write_plan(tmp_path, "unet", "tensorrt"), "tensorrt", "unet")
    path, loaded = write_plan(tmp_path, "llm", "tensorrt"), []
    loading = threading.Thread(target=lambda: loaded.append(open_it(path, "tensorrt", "llm")))
    execute, waited = host_gpu.HostContext.execute_async_v3, []

    def watched(self, stream):
        if host.capturing is not None:
            loading.start()
            loading.join(0.5)
            waited.append(loading.is_alive())
        return execute(self, stream)

    monkeypatch.setattr(host_gpu.HostContext, "execute_async_v3", watched)
    for _ in range(3):
        unet.run(example_inputs(unet.spec.inputs))
    loading.join()
    assert waited == [True] and len(loaded) == 1
    for session in (unet, *loaded):
        session.close()


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_grown_activation_buffer_makes_the_graph_anew(host, tmp_path, library, monkeypatch):
    """The captured graph holds the buffer's address: replayed after it moved, it would write over other memory."""
    unet = open_it(write_plan(tmp_path, "unet", library), library, "unet")
    vae = open_it(write_plan(tmp_path, "vae_decoder", library), library)
    feeds = example_inputs(unet.spec.inputs)
    expected = [unet.run(feeds)["prediction"] for _ in range(3)][-1]
    vae._engine._engine.device_memory_size_v2 = 3_000_000
    vae.run(example_inputs(vae.spec.inputs))
    np.testing.assert_array_equal(unet.run(feeds)["prediction"], expected)
    assert host.calls.count("cuStreamBeginCapture_v2") == 2
    unet.close()
    vae.close()


@pytest.mark.parametrize("library", LIBRARIES)
def test_all_stages_share_one_activation_buffer(host, tmp_path, library):
    sessions = [open_it(write_plan(tmp_path, name, library), library, name) for name in ("unet", "vae_decoder")]
    for session in sessions:
        session.run(example_inputs(session.spec.inputs))
    scratch = host_gpu.HostEngine.device_memory_size_v2
    assert scratch < host.allocated < 1.5 * scratch
    for session in sessions:
        session.close()
    assert not host.blocks  # everything was given back


def test_the_cache_stays_on_the_gpu(host, tmp_path):
    session = open_it(write_plan(tmp_path, "llm", "tensorrt"), "tensorrt", "llm")
    names = cache_names(DIMENSIONS)
    present = [p for _, p in names]
    feeds = example_inputs(session.spec.inputs)
    state = session.run(feeds, keep=present)
    host.calls.clear()
    step = {"inputs_embeds": feeds["inputs_embeds"][:, :1]}
    state = session.run(step | {past: state.kept[p] for past, p in names}, keep=present)
    assert host.calls.count("cuMemcpyHtoDAsync_v2") == 1  # the new position's embedding
    assert host.calls.count("cuMemcpyDtoHAsync_v2") == 2  # logits and features
    session.run(step | {past: state.kept[p] for past, p in names}, keep=present)
    host.calls.clear()
    for _ in range(3):
        state = session.run(step | {past: state.kept[p] for past, p in names}, keep=present)
    assert host.calls.count("cuMemAlloc_v2") <= 1  # slabs are used again
    del state
    session.close()
    assert not host.blocks


def test_out_of_memory_is_a_sentence_and_the_session_lives_on(host, tmp_path):
    session = open_it(write_plan(tmp_path, "vae_decoder", "tensorrt"), "tensorrt")
    feeds = example_inputs(session.spec.inputs)
    host.memory_bytes = host.allocated + 1000
    with pytest.raises(StageMemoryError, match="the GPU is out of memory in cuMemAlloc_v2"):
        session.run(feeds)
    host.memory_bytes = 1 << 30
    session.run(feeds)
    session.close()


def test_other_cuda_errors_are_named(host, tmp_path):
    session = open_it(write_plan(tmp_path, "vae_decoder", "tensorrt"), "tensorrt")
    host.fail["cuStreamSynchronize"] = 700
    with pytest.raises(EngineError, match=r"cuStreamSynchronize failed with 700"):
        session.run(example_inputs(session.spec.inputs))
    host.fail.clear()
    session.close()


def test_the_narrowest_profile_is_taken(host, tmp_path):
    session = open_it(write_plan(tmp_path, "llm", "tensorrt"), "tensorrt", "llm")
    engine, feeds = session._engine, example_inputs(session.spec.inputs)
    assert engine._profile_for(feeds) == 0
    assert engine._profile_for(feeds | {"inputs_embeds": feeds["inputs_embeds"][:, :1]}) == 1
    assert [context.profile for context in engine._contexts] == [0, 1]
    session.close()


def test_a_shape_outside_of_every_profile_is_refused(host, tmp_path):
    session = open_it(write_plan(tmp_path, "grounder", "tensorrt"), "tensorrt", "grounder")
    long = DIMENSIONS.axes["S"].maximum + 1
    feeds = {
        "context_features": np.zeros((1, long, DIMENSIONS.features), np.float32),
        "context_mask": np.ones((1, long), np.bool_),
    }
    with pytest.raises(ContractError, match=r"context_features \(1, \d+, \d+\).*outside of every profile"):
        session.run(feeds)
    session.close()


def test_kernels_are_kept_over_restarts(host, tmp_path):
    path = write_plan(tmp_path, "vae_decoder", "tensorrt_rtx")
    for _ in range(2):
        session = open_it(path, "tensorrt_rtx")
        session.run(example_inputs(session.spec.inputs))
        session.close()
    kept = list((tmp_path / "cache" / "kernels").iterdir())
    assert [p.read_bytes() for p in kept] == [b"kernel"]


def test_no_token_waits_for_kernels_of_its_own_shape():
    """EAGER, the strategy of graphs, compiles in a blocking way for every new shape, and a cache has one each token."""
    found = {s.name: specialisation(s) for s in stages(DIMENSIONS)}
    assert found["llm"] == "NONE"
    assert {found[name] for name in ("unet", "vae_decoder")} == {"EAGER"}
    assert {found[name] for name in ("grounder", "refiner", "vision_encoder")} == {"LAZY"}


def test_plans_and_sizes():
    plan = SlabPlan.of({"a": 1, "b": 0, "c": 1000})
    assert plan.offsets == {"a": 0, "b": ALIGNMENT, "c": 2 * ALIGNMENT}
    assert plan.size == 2 * ALIGNMENT + 1024
    sizes = [slab_size(n) for n in range(70_000, 140_000, 500)]
    assert all(s >= n for s, n in zip(sizes, range(70_000, 140_000, 500), strict=True))
    assert len(set(sizes)) <= 6
    assert set(NUMPY_TYPES.values()) >= {np.dtype(t.value) for t in DType}


def test_profiles_know_their_lengths():
    profile = ProfileRecord({"x": ((1, 1, 4), (1, 8, 4), (1, 16, 4))})
    assert profile.holds("x", (1, 16, 4)) and not profile.holds("x", (1, 17, 4)) and profile.holds("y", (9,))
    assert profile.spread == 16


def test_records_survive_json(host, tmp_path):
    record = read_record(write_plan(tmp_path, "llm", "tensorrt"))
    assert record == type(record).from_json(json.loads(json.dumps(record.to_json())))


#: What the runtime calls, by class of the library; the second value: how many arguments.
CALLED = {
    "IExecutionContext": {
        "set_input_shape": 2, "set_tensor_address": 2, "get_tensor_shape": 1, "set_device_memory": 2,
        "execute_async_v3": 1, "set_optimization_profile_async": 2, "is_stream_capturable": 1,
    },
    "IRuntimeConfig": {
        "set_execution_context_allocation_strategy": 1, "create_runtime_cache": 0, "set_runtime_cache": 1,
    },
    "IRuntimeCache": {"serialize": 0, "deserialize": 1},
    "Runtime": {"get_engine_validity": 1, "deserialize_cuda_engine": 1},
    "ICudaEngine": {"create_runtime_config": 0, "create_execution_context": 1},
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, names in CALLED.items() for n in names])
def test_the_real_library_has_what_is_called(kind, name):
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for Linux and Windows on x86-64 alone")
    text = getattr(getattr(trt, kind), name).__doc__
    calls = re.findall(rf"{name}\(self: [^,)]*,?\s*(.*?)\) ->", text)
    assert calls, text
    counts = [len([a for a in re.split(r",(?![^\[]*\])", c) if a.strip()]) for c in calls]
    optional = [c.count("=") for c in calls]
    assert any(n - o <= CALLED[kind][name] <= n for n, o in zip(counts, optional, strict=True)), text


def test_the_real_library_has_the_words_that_are_used():
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for Linux and Windows on x86-64 alone")
    for word in ("device_memory_size_v2",):
        assert hasattr(trt.ICudaEngine, word)
    assert hasattr(trt.Runtime, "engine_header_size")
    for name in host_gpu.Diagnostics.__members__:
        assert hasattr(trt.EngineInvalidityDiagnostics, name)
    assert trt.EngineValidity.INVALID is not None
    for enumeration, word in (
        ("ExecutionContextAllocationStrategy", "USER_MANAGED"),
        *(("DynamicShapesKernelSpecializationStrategy", specialisation(s)) for s in stages(DIMENSIONS)),
        ("CudaGraphStrategy", "DISABLED"),
    ):
        assert hasattr(getattr(trt, enumeration), word)
    for word in ("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"):
        assert hasattr(trt.IRuntimeConfig, word)


def test_the_host_copy_has_no_names_of_its_own():
    """What the simulated classes offer is what `CALLED` holds against the real ones."""
    for kind, fake in (("IExecutionContext", host_gpu.HostContext), ("IRuntimeConfig", host_gpu.HostRuntimeConfig)):
        methods = {n for n, _ in inspect.getmembers(fake, inspect.isfunction) if not n.startswith("_")}
        assert methods == set(CALLED[kind])
