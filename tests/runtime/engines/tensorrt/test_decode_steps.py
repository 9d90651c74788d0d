"""Decode steps as CUDA graphs, short of a launch: where the cache lies, when graphs are captured, replayed, dropped."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mgcc_runtime.engines import DecodeGraphs, EngineOptions, KeptTensor, Session, open_session
from mgcc_runtime.engines.tensorrt.cache_ring import CacheRing
from mgcc_runtime.engines.tensorrt.decode_steps import DecodeSteps
from mgcc_runtime.engines.tensorrt.device_memory import GpuMemory
from mgcc_runtime.engines.tensorrt.session import gpu_memory
from mgcc_runtime.engines.tensorrt.slabs import ALIGNMENT
from mgcc_runtime.engines.tensorrt.step_graphs import Places, Saving, StepGraphs
from tests.runtime import host_tensorrt
from tests.runtime.engine_makers import spec_of, write_plan
from tests.runtime.golden_data import example_inputs
from tests.runtime.releases import TENSORRT, TENSORRT_RTX
from tests.runtime.shaped import played
from tests.runtime.tiny_bundle import DIMENSIONS, cache_names

NAMES = cache_names(DIMENSIONS)
PRESENT = [present for _, present in NAMES]
LENGTH = 5  # steps of a text
CAPTURED = LENGTH - 1  # the first reads what the prompt left, which lies elsewhere each time
State = Mapping[str, KeptTensor]


@pytest.fixture
def llm(host, tmp_path, release):
    """The language model's session on the GPU of the host's memory."""
    engine = write_plan(tmp_path, "llm", release)
    options = EngineOptions(decode_graphs=DecodeGraphs.ALWAYS)  # not by a host's clock
    with_engine = open_session(release.library, engine, spec_of("llm"), options)
    steps_of(with_engine).graphs = StepGraphs(pace=1)
    yield with_engine
    with_engine.close()


def steps_of(session: Session) -> DecodeSteps:
    found: DecodeSteps = session._engine._steps  # type: ignore[union-attr]
    return found


def prompt(session: Session) -> State:
    return session.run(example_inputs(session.spec.inputs), keep=PRESENT).kept


def embedding(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (1, 1, DIMENSIONS.hidden)).astype(np.float32)


def step(session: Session, state: State, seed: int) -> tuple[np.ndarray, State]:
    """One position more: its logits and the cache."""
    outputs = session.run({"inputs_embeds": embedding(seed)} | {p: state[q] for p, q in NAMES}, keep=PRESENT)
    return outputs["logits"], outputs.kept


def by_copy(session: Session, state: State, seed: int) -> np.ndarray:
    """The same logits by another way: the cache copied from the host, nothing kept."""
    feeds: dict[str, Any] = {"inputs_embeds": embedding(seed)} | {p: state[q].numpy() for p, q in NAMES}
    return session.run(feeds)["logits"]


def text(session: Session, first: int = 0) -> list[np.ndarray]:
    """The logits of a whole text, each held against the other way."""
    state, found = prompt(session), []
    for seed in range(first, first + LENGTH):
        expected = by_copy(session, state, seed)
        logits, state = step(session, state, seed)
        np.testing.assert_array_equal(logits, expected)
        found.append(logits)
    return found


def captures(host) -> int:
    return host.calls.count("cuStreamBeginCapture_v2")


def test_a_length_is_captured_when_it_comes_back_and_replayed_from_then_on(host, llm):
    text(llm)
    assert (captures(host), host.launches) == (0, 0)
    text(llm, 10)
    assert (captures(host), host.launches) == (CAPTURED, 0)
    text(llm, 20)  # other words at the same lengths
    assert (captures(host), host.launches) == (CAPTURED, CAPTURED)


def test_a_replayed_step_copies_its_embedding_and_results_alone(host, llm):
    text(llm), text(llm)
    state = step(llm, prompt(llm), 0)[1]
    host.calls.clear()
    step(llm, state, 1)
    assert host.calls.count("cuGraphLaunch") == 1
    assert host.calls.count("cuMemcpyHtoDAsync_v2") == 1
    assert host.calls.count("cuMemcpyDtoHAsync_v2") == 2  # logits and features
    assert "cuMemAlloc_v2" not in host.calls


def test_addresses_follow_from_the_past_length(llm, monkeypatch):
    seen: list[tuple[int, Places]] = []
    places = DecodeSteps._places

    def watched(self, ring, past, length):
        seen.append((length, places(self, ring, past, length)))
        return seen[-1][1]

    monkeypatch.setattr(DecodeSteps, "_places", watched)
    held = [text(llm), prompt(llm), text(llm, 10)]  # something else takes memory in between
    first, second = dict(seen[:LENGTH]), dict(seen[LENGTH:])
    assert len(held) == 3 and list(first) == list(second) and len(first) == LENGTH
    for length in list(first)[1:]:
        assert first[length] == second[length]
    for a, b in itertools.pairwise(list(first)[1:]):  # what one step wrote the next one reads
        assert all(first[a].addresses[present] == first[b].addresses[past] for past, present in NAMES)


def test_the_ring_has_room_for_the_longest_context(llm):
    text(llm)
    steps = steps_of(llm)
    assert steps.capacity == DIMENSIONS.context == DIMENSIONS.axes["T"].maximum
    assert steps._ring is not None
    each = DIMENSIONS.kv_heads * DIMENSIONS.context * DIMENSIONS.head_dim * 2  # fp16
    offsets = [steps._ring.offset(name) for name in PRESENT]
    assert all(b - a >= each and b % ALIGNMENT == 0 for a, b in itertools.pairwise(offsets))


def test_steps_go_on_to_the_end_of_the_context(host, llm):
    steps_of(llm).graphs = StepGraphs(most=DIMENSIONS.context, pace=1)
    for _ in range(3):
        state = prompt(llm)
        first = state[PRESENT[0]].shape[2]
        while (length := state[PRESENT[0]].shape[2]) < DIMENSIONS.context:
            logits, after = step(llm, state, length)
            if length > DIMENSIONS.context - 3:
                np.testing.assert_array_equal(logits, by_copy(llm, state, length))
            state = after
        del state, after
    assert host.launches == DIMENSIONS.context - first - 1


def test_a_long_text_told_again_keeps_the_graphs_it_has(host, llm):
    """More lengths than graphs, all met equally often: the first ones stay and are replayed."""
    steps_of(llm).graphs = StepGraphs(most=2, pace=1)
    for _ in range(4):
        text(llm)
    assert (captures(host), host.launches) == (2, 2 * 2)


def test_a_cache_that_is_held_is_never_written_over(llm):
    for _ in range(3):
        states, copies = [prompt(llm)], []
        for seed in range(LENGTH):
            copies.append([states[-1][name].numpy() for name in PRESENT])
            states.append(step(llm, states[-1], seed)[1])
        for state, copy in zip(states, copies, strict=False):
            for name, expected in zip(PRESENT, copy, strict=True):
                np.testing.assert_array_equal(state[name].numpy(), expected)


def test_two_ways_on_from_one_cache(host, llm):
    """As a chat does that draws and then goes on without the [IMG] positions."""
    for _ in range(3):
        state = step(llm, prompt(llm), 0)[1]
        one, after_one = step(llm, state, 1)
        copy = after_one[PRESENT[0]].numpy()
        other, after_other = step(llm, state, 2)
        np.testing.assert_array_equal(after_one[PRESENT[0]].numpy(), copy)
        assert not np.array_equal(one, other)
        np.testing.assert_array_equal(step(llm, after_other, 3)[0], by_copy(llm, after_other, 3))
        np.testing.assert_array_equal(step(llm, after_one, 3)[0], by_copy(llm, after_one, 3))
        del state, after_one, after_other
    assert host.launches > 0


def test_a_moved_activation_buffer_makes_the_graphs_anew(host, llm):
    """A graph holds the buffer's address: replayed after it moved, it would write over other memory."""
    text(llm), text(llm)
    steps_of(llm)._memory.reserve(3_000_000)
    text(llm)
    assert (captures(host), host.launches) == (2 * CAPTURED, 0)
    assert host.calls.count("cuGraphExecDestroy") == CAPTURED
    text(llm)
    assert host.launches == CAPTURED


def test_a_context_is_left_alone_once_its_graph_is_captured(llm, monkeypatch):
    """TensorRT: modifying the context that a graph was captured from makes replaying it undefined."""
    text(llm), text(llm)
    changed: list[int] = []
    place = host_tensorrt.HostContext.set_tensor_address
    monkeypatch.setattr(
        host_tensorrt.HostContext, "set_tensor_address",
        lambda self, name, memory: changed.append(id(self)) or place(self, name, memory),
    )  # fmt: skip
    held = prompt(llm)  # so that the next prompt's cache lies elsewhere
    text(llm)
    own = {id(played(kept.context._context)) for kept in steps_of(llm).graphs._kept.values()}
    assert held and changed and len(own) == CAPTURED and not own & {*changed}


@pytest.mark.parametrize("release", TENSORRT_RTX, ids=str, indirect=True)  # TensorRT has no such question
def test_a_context_that_cannot_be_captured_is_asked_now_and_then(host, llm, monkeypatch):
    asked: list[int] = []

    def refuse(self, stream):
        asked.append(stream)
        return False

    monkeypatch.setattr(host_tensorrt.HostContext, "is_stream_capturable", refuse)
    for _ in range(7):  # 4 occasions each from the second text on
        text(llm)
    assert (captures(host), host.launches, len(asked)) == (0, 0, 2)


@pytest.mark.parametrize("call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_a_step_that_cannot_be_captured_is_launched_plainly(host, llm, call, caplog):
    host.fail[call] = 900
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            text(llm)  # each step's logits are those of another way
    assert (captures(host), host.launches) == (1, 0)
    assert len(caplog.records) == 1 and "stage llm is not captured as a CUDA graph" in caplog.text


def test_without_room_for_the_ring_steps_run_as_before(host, llm, monkeypatch):
    monkeypatch.setattr(GpuMemory, "free_bytes", lambda memory: 100_000)
    for _ in range(3):
        text(llm)
    assert (captures(host), host.launches, steps_of(llm)._ring) == (0, 0, None)


def test_room_for_the_ring_is_asked_for_again(host, llm, monkeypatch):
    """What another program had when the first text was written it may have given back by the second."""
    asked: list[int] = []
    monkeypatch.setattr("mgcc_runtime.engines.tensorrt.decode_steps._ASK_AGAIN", 2 * LENGTH)
    with monkeypatch.context() as patch:
        patch.setattr(GpuMemory, "free_bytes", lambda memory: asked.append(1) or 100_000)
        text(llm), text(llm)
    assert steps_of(llm)._ring is None and len(asked) == 1
    for _ in range(4):
        text(llm)
    assert steps_of(llm)._ring is not None and host.launches > 0


def test_everything_is_given_back(host, llm):
    for _ in range(3):
        text(llm)
    state = step(llm, prompt(llm), 0)[1]
    llm.close()
    assert host.calls.count("cuGraphExecDestroy") == captures(host) > 0
    assert host.blocks  # somebody still has the cache
    del state
    assert not host.blocks


def places(address: int = 1) -> Places:
    return Places({"x": (1, 1)}, {"x": address}, (7, 8))


class FakeGraph(SimpleNamespace):
    closed = False

    def close(self) -> None:
        self.closed = True


def test_graphs_are_bounded_and_the_rarest_goes_first():
    graphs, made = StepGraphs(most=2, pace=1), {n: FakeGraph() for n in range(4)}
    for length in (0, 0, 1, 1, 1):
        graphs.meet(length, places())
    for length in (0, 1):
        graphs.keep(length, object(), made[length], places())  # type: ignore[arg-type]
    for length in (2, 2):  # as often as the rarest that is kept: not more
        graphs.meet(length, places())
    assert not graphs.worth(2)
    graphs.meet(2, places())
    assert graphs.worth(2)
    graphs.keep(2, object(), made[2], places())  # type: ignore[arg-type]
    assert len(graphs) == 2 and made[0].closed and not made[1].closed
    assert graphs.meet(1, places()) is made[1] and graphs.meet(0, places()) is None
    graphs.close()
    assert len(graphs) == 0 and made[1].closed and made[2].closed


def test_a_length_met_once_is_worth_no_graph():
    graphs = StepGraphs()
    assert not graphs.worth(3)
    graphs.meet(3, places())
    assert not graphs.worth(3)
    graphs.meet(3, places())
    assert graphs.worth(3)


@pytest.mark.parametrize("other", [places(2), Places({"x": (1, 2)}, {"x": 1}, (7, 8))])
def test_a_graph_stands_aside_for_a_step_of_other_places(other):
    """The first step after a prompt reads a cache elsewhere; the text that comes to this length later does not."""
    graphs, graph = StepGraphs(pace=1), FakeGraph()
    graphs.meet(3, places())
    graphs.keep(3, object(), graph, places())  # type: ignore[arg-type]
    assert graphs.meet(3, other) is None and not graph.closed and not graphs.worth(3)
    assert graphs.meet(3, places()) is graph


def test_a_graph_whose_activation_buffer_is_gone_is_dropped_and_its_context_used_again():
    graphs, graph, context = StepGraphs(pace=1), FakeGraph(), object()
    graphs.meet(3, places())
    graphs.keep(3, context, graph, places())  # type: ignore[arg-type]
    assert graphs.meet(3, Places({"x": (1, 1)}, {"x": 1}, (9, 8))) is None and graph.closed and len(graphs) == 0
    assert graphs.worth(3) and graphs.spare_context() is context and graphs.spare_context() is None


def test_captures_keep_a_pace():
    """Each takes several steps' time, and a text told again would have one at each of its steps."""
    graphs, captured = StepGraphs(pace=4), []
    for _ in range(4):
        for length in range(12):
            if graphs.meet(length, places()) is None and graphs.worth(length):
                graphs.keep(length, object(), FakeGraph(), places())  # type: ignore[arg-type]
                captured.append(length)
    assert captured == [0, 4, 8, 1, 5, 9, 2, 6, 10]


def test_graphs_keep_to_their_part_of_the_memory():
    graphs = StepGraphs(most=9, pace=1, budget_bytes=100)
    for length in (0, 0, 1, 1, 2, 2):
        graphs.meet(length, places())
    for length in (0, 1):
        assert graphs.worth(length)
        graphs.keep(length, object(), FakeGraph(), places(), cost_bytes=40)  # type: ignore[arg-type]
        graphs.meet(length, places())
    assert not graphs.worth(2) and len(graphs) == 2
    graphs.meet(2, places()), graphs.meet(2, places())
    assert graphs.worth(2)  # more often than the rarest
    graphs.keep(2, object(), FakeGraph(), places(), cost_bytes=50)  # type: ignore[arg-type]
    assert len(graphs) == 2


@pytest.mark.parametrize(("replayed_ms", "worth_it"), [(9.0, True), (9.9, False), (12.0, False)])
def test_graphs_that_save_no_time_are_told(replayed_ms, worth_it):
    saving = Saving()
    for i in range(48):
        saving.note(0.010 + i * 1e-6, replayed=False)
        assert saving.is_worth_it() is None
        saving.note((replayed_ms + (50 if i % 3 == 0 else 0)) / 1e3, replayed=True)  # now and then one is held up
    assert saving.is_worth_it() is worth_it


@pytest.mark.parametrize(
    ("choice", "verdict", "launched"),
    [
        (DecodeGraphs.ALWAYS, False, True),
        (DecodeGraphs.MEASURED, True, True),
        (DecodeGraphs.MEASURED, False, False),
        (DecodeGraphs.NEVER, True, False),
    ],
)
@pytest.mark.parametrize("release", TENSORRT[-1:], ids=str, indirect=True)
def test_the_choice_of_decode_graphs(host, tmp_path, release, choice, verdict, launched, monkeypatch):
    monkeypatch.setattr(Saving, "is_worth_it", lambda self: verdict if len(self._replayed_s) > 3 else None)
    engine = write_plan(tmp_path, "llm", release)
    session = open_session(release.library, engine, spec_of("llm"), EngineOptions(decode_graphs=choice))
    steps_of(session).graphs = StepGraphs(pace=1)
    for _ in range(4):
        text(session)
    before = host.launches
    text(session)
    assert (host.launches > before) is launched and (captures(host) > 0) is (choice is not DecodeGraphs.NEVER)
    assert (len(steps_of(session).graphs) > 0) is launched
    session.close()
    assert not host.blocks and not host.pinned


@pytest.mark.parametrize("release", TENSORRT_RTX, ids=str, indirect=True)  # it asks nothing of the library
def test_a_place_is_free_when_nobody_holds_it(host):
    ring = CacheRing(gpu_memory(), {"a": 1000, "b": 1})
    lease = ring.claim(4)
    assert lease is not None and ring.claim(6) is None
    assert ring.claim(5) is not None  # the other place
    assert ring.address("b", 4) == ring.address("b", 6) == lease.buffer.address + ring.offset("b")
    del lease
    assert ring.claim(6) is not None
    assert CacheRing.size_of({"a": 1000, "b": 1}) == 2 * (1024 + ALIGNMENT) == host.allocated
