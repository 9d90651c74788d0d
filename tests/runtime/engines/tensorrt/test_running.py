"""The TensorRT engine short of a kernel: its memory, its copies, what it waits for, and its CUDA graphs."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from mgcc_runtime.engines.tensorrt import lanes
from mgcc_runtime.errors import EngineError, StageMemoryError
from tests.runtime import host_tensorrt
from tests.runtime.engine_makers import open_it, write_plan
from tests.runtime.golden_data import example_inputs
from tests.runtime.host_gpu import CONSTANTS
from tests.runtime.host_tensorrt import HostContext, HostEngine
from tests.runtime.releases import TENSORRT
from tests.runtime.tiny_bundle import DIMENSIONS, cache_names

ONE = pytest.mark.parametrize("release", TENSORRT[-1:], ids=str, indirect=True)  # nothing that releases differ in


def captures(host) -> int:
    return host.calls.count("cuStreamBeginCapture_v2")


@pytest.fixture
def unet(host, tmp_path, release):
    """The denoising step, of fixed shape."""
    session = open_it(write_plan(tmp_path, "unet", release), release, "unet")
    yield session
    session.close()
    assert not host.blocks and not host.pinned  # everything was given back


@pytest.fixture
def llm(host, tmp_path, release):
    session = open_it(write_plan(tmp_path, "llm", release), release, "llm")
    yield session
    session.close()


def test_a_fixed_stage_is_captured_once_and_replayed(host, unet):
    feeds = example_inputs(unet.spec.inputs)
    for _ in range(5):
        unet.run(feeds)
    assert (captures(host), host.launches) == (1, 4)


def test_a_captured_context_is_left_alone(host, unet, monkeypatch):
    """The stand-in fails where a graph is replayed whose context was told anything; so may TensorRT."""
    feeds = example_inputs(unet.spec.inputs)
    unet.run(feeds), unet.run(feeds)
    told: list[str] = []
    for name in ("set_input_shape", "set_tensor_address", "set_device_memory", "get_tensor_shape"):
        monkeypatch.setattr(HostContext, name, lambda self, *_, name=name, **__: told.append(name))
    for _ in range(3):
        unet.run(feeds, keep=["prediction"])
    assert host.launches == 4 and not told


def test_a_graph_of_a_changed_context_is_caught(host, unet):
    """What holds the test above: the stand-in does catch it."""
    feeds = example_inputs(unet.spec.inputs)
    unet.run(feeds), unet.run(feeds)
    unet._engine._engine.contexts[0]._addresses.clear()  # so that all is told again
    with pytest.raises(EngineError):
        unet.run(feeds)
    assert [str(fault) for fault in host.faults] == ["a graph is replayed whose context was changed after the capture"]
    host.faults.clear()


def test_nothing_is_captured_on_memory_that_was_not_run_on(host, unet, tmp_path, release, monkeypatch):
    """The captured graph holds the buffer's address: replayed after it moved, it would write over other memory. Where
    it moved, the engine runs plainly once more before the next capture.
    """
    feeds = example_inputs(unet.spec.inputs)
    expected = [unet.run(feeds)["prediction"] for _ in range(3)][-1]
    with monkeypatch.context() as patch:
        patch.setattr(HostEngine, "device_memory_size_v2", 3_000_000)
        vae = open_it(write_plan(tmp_path, "vae_decoder", release), release)
    seen = []
    for _ in range(3):
        np.testing.assert_array_equal(unet.run(feeds)["prediction"], expected)
        seen.append((captures(host), host.launches))
    assert seen == [(1, 2), (2, 3), (2, 4)]
    vae.close()


def test_the_largest_stages_memory_is_reserved_at_load(host, tmp_path, release, monkeypatch):
    small = open_it(write_plan(tmp_path, "unet", release), release, "unet")
    with monkeypatch.context() as patch:
        patch.setattr(HostEngine, "device_memory_size_v2", 3_000_000)
        large = open_it(write_plan(tmp_path, "vae_decoder", release), release)
    before = small._engine._memory.activations
    small.run(example_inputs(small.spec.inputs))
    large.run(example_inputs(large.spec.inputs))
    assert small._engine._memory.activations is before and before.size == 3_000_000
    small.close()
    large.close()


def test_all_stages_share_one_activation_buffer(host, tmp_path, release):
    sessions = [open_it(write_plan(tmp_path, name, release), release, name) for name in ("unet", "vae_decoder")]
    for session in sessions:
        session.run(example_inputs(session.spec.inputs))
    scratch = HostEngine.device_memory_size_v2
    assert scratch < host.allocated < 1.5 * scratch
    for session in sessions:
        session.close()
    assert not host.blocks


@pytest.fixture(params=["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "TensorRT"])
def no_capture(request, host, monkeypatch):
    """A GPU that captures nothing: by the driver, or because TensorRT cannot queue its work meanwhile."""
    if request.param == "TensorRT":
        execute = HostContext.execute_async_v3
        monkeypatch.setattr(
            HostContext, "execute_async_v3",
            lambda self, stream_handle: host.capturing is None and execute(self, stream_handle),
        )  # fmt: skip
    else:
        host.fail[request.param] = 900
    return host


def test_an_engine_that_cannot_be_captured_is_launched_plainly(no_capture, unet, caplog):
    feeds = example_inputs(unet.spec.inputs)
    with caplog.at_level(logging.WARNING):
        found = [unet.run(feeds)["prediction"] for _ in range(5)]
    assert all(np.array_equal(one, found[0]) for one in found)
    assert (captures(no_capture), no_capture.launches) == (1, 0)
    assert len(caplog.records) == 1 and "stage unet is not captured as a CUDA graph" in caplog.text
    unet.close()
    assert no_capture.calls.count("cuGraphDestroy") == len(no_capture.graphs)  # nothing was left behind


@ONE
def test_a_failed_capture_is_tried_again(host, unet):
    """What another part of the program did may have spoilt it; thrice is enough for what cannot be."""
    feeds = example_inputs(unet.spec.inputs)
    host.fail["cuStreamEndCapture"] = CONSTANTS["CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"]
    for _ in range(2):
        unet.run(feeds)
    host.fail.clear()
    for _ in range(17):
        unet.run(feeds)
    assert (captures(host), host.launches) == (2, 1)


@ONE
def test_what_cannot_be_captured_is_tried_three_times(host, unet):
    feeds = example_inputs(unet.spec.inputs)
    host.fail["cuStreamEndCapture"] = 900
    for _ in range(400):
        unet.run(feeds)
    assert (captures(host), host.launches) == (3, 0)


def test_loading_waits_for_a_capture(host, unet, tmp_path, release, monkeypatch):
    """What a second pipeline queues in the one stream while it loads would become part of the graph, or spoil it."""
    path, loaded = write_plan(tmp_path, "llm", release), []
    loading = threading.Thread(target=lambda: loaded.append(open_it(path, release, "llm")))
    execute, waited = HostContext.execute_async_v3, []

    def watched(self, stream_handle):
        if host.capturing is not None:
            loading.start()
            loading.join(0.1)
            waited.append(loading.is_alive())
        return execute(self, stream_handle)

    monkeypatch.setattr(HostContext, "execute_async_v3", watched)
    for _ in range(3):
        unet.run(example_inputs(unet.spec.inputs))
    loading.join()
    assert waited == [True] and len(loaded) == 1
    loaded[0].close()


@ONE
def test_the_stream_waits_for_no_other(host, unet):
    """Work of the program around ours in the default stream would become part of a capture otherwise."""
    assert host.stream_flags == [CONSTANTS["CU_STREAM_NON_BLOCKING"]]


def test_a_stage_whose_results_stay_is_not_waited_for(host, unet):
    feeds = example_inputs(unet.spec.inputs)
    expected = unet.run(feeds)["prediction"]
    for step in range(4):
        host.calls.clear()
        kept = unet.run(feeds, keep=["prediction"]).kept["prediction"]
        if step:  # the first has the wait of the run before it behind it
            assert host.calls.count("cuStreamSynchronize") <= 1
        np.testing.assert_array_equal(kept.numpy(), expected)
    host.calls.clear()
    unet.run(feeds, keep=["prediction"])
    assert "cuStreamSynchronize" not in host.calls


def test_a_copy_that_is_under_way_is_not_written_over(unet):
    """Two calls behind each other without a wait: the second one's timestep must not reach the first one's work."""
    feeds = example_inputs(unet.spec.inputs)
    steps = [feeds | {"timestep": np.array([t], np.float32)} for t in (900.0, 10.0)]
    expected = [unet.run(one)["prediction"] for one in steps]
    assert not np.array_equal(*expected)
    kept = [unet.run(one, keep=["prediction"]).kept["prediction"] for one in steps]
    for found, value in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(found.numpy(), value)


def test_copies_go_through_pinned_memory(host, llm):
    llm.run(example_inputs(llm.spec.inputs))
    assert host.pinned
    pinned = sum(len(block) for block in host.pinned.values())
    host.calls.clear()
    llm.run(example_inputs(llm.spec.inputs))
    assert "cuMemHostAlloc" not in host.calls and pinned == sum(len(block) for block in host.pinned.values())
    assert host.pageable == 0 and host.calls.count("cuMemcpyHtoDAsync_v2") > 0
    llm.close()
    assert not host.pinned


@ONE
@pytest.mark.parametrize("why", ["too large", "none to be had"])
def test_without_pinned_memory_copies_are_made_all_the_same(host, unet, monkeypatch, why):
    feeds = example_inputs(unet.spec.inputs)
    if why == "too large":
        monkeypatch.setattr(lanes, "_MOST_PINNED", 16)
    else:
        host.fail["cuMemHostAlloc"] = CONSTANTS["CUDA_ERROR_OUT_OF_MEMORY"]
    first = unet.run(feeds)["prediction"]
    other = unet.run(feeds | {"latents": feeds["latents"] + 1})["prediction"]
    np.testing.assert_array_equal(unet.run(feeds)["prediction"], first)
    assert not np.array_equal(first, other)


@ONE
def test_a_longer_prompt_finds_room(host, llm):
    """Lanes grow; what is longer than before is right, and so is what is shorter after it."""
    feeds = example_inputs(llm.spec.inputs)
    length = feeds["inputs_embeds"].shape[1]
    longer = feeds | {"inputs_embeds": np.concatenate([feeds["inputs_embeds"]] * 2, axis=1)}
    before = llm.run(feeds)
    np.testing.assert_array_equal(llm.run(longer)["hidden_states"][:, :length], before["hidden_states"])
    np.testing.assert_array_equal(llm.run(feeds)["logits"], before["logits"])


def test_the_cache_stays_on_the_gpu(host, llm):
    names = cache_names(DIMENSIONS)
    present = [p for _, p in names]
    feeds = example_inputs(llm.spec.inputs)
    state = llm.run(feeds, keep=present)
    host.calls.clear()
    step = {"inputs_embeds": feeds["inputs_embeds"][:, :1]}
    state = llm.run(step | {past: state.kept[p] for past, p in names}, keep=present)
    assert host.calls.count("cuMemcpyHtoDAsync_v2") == 1  # the new position's embedding
    assert host.calls.count("cuMemcpyDtoHAsync_v2") == 2  # logits and features
    llm.run(step | {past: state.kept[p] for past, p in names}, keep=present)
    host.calls.clear()
    for _ in range(3):
        state = llm.run(step | {past: state.kept[p] for past, p in names}, keep=present)
    assert host.calls.count("cuMemAlloc_v2") <= 1  # slabs are used again
    del state
    llm.close()
    assert not host.blocks


def test_out_of_memory_is_a_sentence_and_the_session_lives_on(host, unet):
    feeds = example_inputs(unet.spec.inputs)
    host.memory_bytes = host.allocated + 100
    with pytest.raises(StageMemoryError, match="the GPU is out of memory in cuMemAlloc_v2"):
        unet.run(feeds)
    host.memory_bytes = 1 << 30
    unet.run(feeds)


@ONE
def test_out_of_memory_first_gives_back_what_lies_idle(host, llm, tmp_path, release):
    """A cache of one length leaves a slab that another length cannot use."""
    names = cache_names(DIMENSIONS)
    feeds = example_inputs(llm.spec.inputs)
    state = llm.run(feeds, keep=[p for _, p in names])
    del state
    idle = llm._engine._memory._slabs.idle_bytes
    assert idle > 0
    host.memory_bytes = host.allocated
    spare = llm._engine._memory.allocate(idle)
    assert llm._engine._memory._slabs.idle_bytes == 0
    spare.free()


@ONE
def test_an_activation_buffer_that_found_no_room_is_asked_for_again(host, unet, monkeypatch):
    """What was there before is gone then; its address must not be used."""
    memory = unet._engine._memory
    host.memory_bytes = host.allocated
    with pytest.raises(StageMemoryError):
        memory.reserve(5_000_000)
    host.memory_bytes = 1 << 30
    unet.run(example_inputs(unet.spec.inputs))


def test_other_cuda_errors_are_named(host, unet):
    host.fail["cuStreamSynchronize"] = 700
    with pytest.raises(EngineError, match=r"cuStreamSynchronize failed with 700"):
        unet.run(example_inputs(unet.spec.inputs))
    host.fail.clear()


@ONE
def test_a_stage_that_finds_no_room_at_load_leaves_nothing_behind(host, tmp_path, release):
    host.memory_bytes = 1000
    with pytest.raises(StageMemoryError):
        open_it(write_plan(tmp_path, "unet", release), release, "unet")
    assert not host.blocks
    host.memory_bytes = 1 << 30
    session = open_it(tmp_path / "unet.engine", release, "unet")
    session.close()
    assert not host.blocks


def test_engine_of_reaches_the_player(unet):
    """The tests above reach into the stand-in by this."""
    assert isinstance(host_tensorrt.engine_of(unet), HostEngine)
