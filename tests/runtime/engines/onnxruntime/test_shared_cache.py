"""A cache that a graph writes in place is still a value to everybody who holds it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mgcc_runtime import Pipeline
from mgcc_runtime.engines.onnxruntime.shared_cache import Buffer, SharedTensor
from mgcc_runtime.errors import ContractError, StageValueError
from mgcc_runtime.kv_cache import KvCache
from tests.runtime.in_place_llm import CAPACITY, make_in_place, make_two_graph_bundle
from tests.runtime.tiny_bundle import DIMENSIONS

TOLERANCE = 1e-5  # sums in another order
EMPTY = KvCache.empty(DIMENSIONS)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    root = make_two_graph_bundle(tmp_path_factory.mktemp("in-place") / "bundle", make_in_place(), None)
    with Pipeline.load(root, threads=1) as pipeline:
        yield pipeline.stages


def embeddings(length, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (1, length, DIMENSIONS.hidden)).astype(np.float32)


def buffer_of(cache) -> Buffer:
    tensor = cache.tensors[0]
    assert isinstance(tensor, SharedTensor)
    return tensor.view.buffer


def test_in_pieces_equals_at_once(stages):
    x = embeddings(9)
    whole = stages.read(x, EMPTY)
    first = stages.read(x[:, :4], EMPTY)
    second = stages.read(x[:, 4:], first.cache)
    np.testing.assert_allclose(second.logits, whole.logits, atol=TOLERANCE)
    np.testing.assert_allclose(np.concatenate([first.features, second.features], 1), whole.features, atol=TOLERANCE)
    for a, b in zip(second.cache.tensors, whole.cache.tensors, strict=True):
        assert a.shape == b.shape == (1, DIMENSIONS.kv_heads, 9, DIMENSIONS.head_dim)
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=TOLERANCE)


def test_the_newest_is_extended_without_a_copy(stages):
    state = stages.read(embeddings(5), EMPTY)
    first = buffer_of(state.cache)
    for i in range(3):
        state = stages.read(embeddings(1, seed=i), state.cache)
    assert buffer_of(state.cache) is first and state.cache.length == 8


def test_an_older_cache_stays_what_it_was_after_a_newer_extension(stages):
    start = stages.read(embeddings(5), EMPTY)
    before = [tensor.numpy() for tensor in start.cache.tensors]
    text = stages.read(embeddings(3, seed=1), start.cache)
    written = [tensor.numpy() for tensor in text.cache.tensors]
    branch = stages.read(embeddings(7, seed=2), start.cache)
    assert buffer_of(branch.cache) is not buffer_of(text.cache)
    for tensor, values in zip(start.cache.tensors, before, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), values)
    for tensor, values in zip(text.cache.tensors, written, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), values)
    again = stages.read(embeddings(7, seed=2), start.cache)
    np.testing.assert_array_equal(again.logits, branch.logits)


def test_positions_that_nobody_holds_any_more_are_written_over(stages):
    start = stages.read(embeddings(5), EMPTY)
    stages.read(embeddings(3, seed=1), start.cache)  # a text, dropped at once
    branch = stages.read(embeddings(8, seed=2), start.cache)
    assert buffer_of(branch.cache) is buffer_of(start.cache)
    whole = stages.read(np.concatenate([embeddings(5), embeddings(8, seed=2)], 1), EMPTY)
    np.testing.assert_allclose(branch.logits, whole.logits, atol=TOLERANCE)


def test_going_on_from_one_cache_in_many_threads(stages):
    start = stages.read(embeddings(5), EMPTY)
    alone = [stages.read(embeddings(4, seed=i), start.cache).logits for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: stages.read(embeddings(4, seed=i), start.cache).logits, range(8)))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE)


def test_a_cache_in_the_hosts_memory_is_taken_too(stages):
    start = stages.read(embeddings(5), EMPTY)
    copied = KvCache(tuple(tensor.numpy() for tensor in start.cache.tensors), 5)
    by_copy = stages.read(embeddings(2, seed=1), copied)
    np.testing.assert_array_equal(by_copy.logits, stages.read(embeddings(2, seed=1), start.cache).logits)
    assert not np.shares_memory(copied.tensors[0], buffer_of(by_copy.cache).arrays["past_key_values.0.key"])


def test_outputs_that_are_not_kept_are_the_contracts(stages):
    session = stages.sessions["llm"]
    start = stages.read(embeddings(5), EMPTY)
    found = session.run({"inputs_embeds": embeddings(2, seed=1), **start.cache.feeds()})
    after = stages.read(embeddings(2, seed=1), start.cache)
    np.testing.assert_array_equal(found["present.1.value"], after.cache.tensors[3].numpy())


def test_more_than_the_capacity_is_refused(stages):
    start = stages.read(embeddings(CAPACITY - 1), EMPTY)
    with pytest.raises(ContractError, match=f"expected at most {CAPACITY} in all; shorten the prompt"):
        stages.read(embeddings(2), start.cache)
    assert stages.read(embeddings(1), start.cache).cache.length == CAPACITY


def test_a_failed_call_leaves_the_cache_usable(stages):
    start = stages.read(embeddings(5), EMPTY)
    expected = stages.read(embeddings(2, seed=1), start.cache).logits
    broken = embeddings(2, seed=1)
    broken[0, 1, 0] = np.nan
    with pytest.raises(StageValueError):
        stages.read(broken, start.cache)
    np.testing.assert_array_equal(stages.read(embeddings(2, seed=1), start.cache).logits, expected)


def test_results_are_the_callers_own(stages):
    """A binding is used again for the next call: what the last one gave must not change with it."""
    first = stages.read(embeddings(1), EMPTY)
    logits, features = first.logits.copy(), first.features.copy()
    stages.read(embeddings(1, seed=5), first.cache)
    np.testing.assert_array_equal(first.logits, logits)
    np.testing.assert_array_equal(first.features, features)


def test_a_long_prompt_is_read_in_pieces(stages, monkeypatch):
    from mgcc_runtime.engines.onnxruntime import in_place

    x = embeddings(50)
    whole = stages.read(x, EMPTY)
    runs = []
    monkeypatch.setattr(in_place, "PIECE", 16)
    run_on = in_place.InPlaceSession._run_on

    def counted(self, view, before, feeds):
        runs.append((before, feeds["inputs_embeds"].shape[1]))
        return run_on(self, view, before, feeds)

    monkeypatch.setattr(in_place.InPlaceSession, "_run_on", counted)
    pieces = stages.read(x, EMPTY)
    assert runs == [(0, 13), (13, 13), (26, 12), (38, 12)]
    np.testing.assert_allclose(pieces.logits, whole.logits, atol=TOLERANCE)
    np.testing.assert_allclose(pieces.features, whole.features, atol=TOLERANCE)
    np.testing.assert_allclose(pieces.cache.tensors[3].numpy(), whole.cache.tensors[3].numpy(), atol=TOLERANCE)
