"""The cache is a value: reading in pieces is reading at once, and an older cache stays usable."""

import numpy as np
import pytest

from mgcc_runtime.kv_cache import KvCache

TOLERANCE = 1e-5  # sums in another order


@pytest.fixture
def embeddings(dimensions):
    def draw(length, seed=0):
        return np.random.default_rng(seed).normal(0, 1, (1, length, dimensions.hidden)).astype(np.float32)

    return draw


def test_in_pieces_equals_at_once(pipe, dimensions, embeddings):
    x = embeddings(9)
    whole = pipe.stages.read(x, KvCache.empty(dimensions))
    first = pipe.stages.read(x[:, :4], KvCache.empty(dimensions))
    second = pipe.stages.read(x[:, 4:], first.cache)
    assert (first.cache.length, second.cache.length, whole.cache.length) == (4, 9, 9)
    np.testing.assert_allclose(second.logits, whole.logits, atol=TOLERANCE)
    features = np.concatenate([first.features, second.features], 1)
    np.testing.assert_allclose(features, whole.features, atol=TOLERANCE)


def test_going_on_from_an_older_cache(pipe, dimensions, embeddings):
    start = pipe.stages.read(embeddings(5), KvCache.empty(dimensions))
    once = pipe.stages.read(embeddings(2, seed=1), start.cache)
    pipe.stages.read(embeddings(7, seed=2), start.cache)
    pipe.stages.read(embeddings(7, seed=3), once.cache)
    again = pipe.stages.read(embeddings(2, seed=1), start.cache)
    np.testing.assert_array_equal(once.logits, again.logits)


def test_cache_matters(pipe, dimensions, embeddings):
    """The check above would pass for a cache that is ignored."""
    x = embeddings(2)
    empty = pipe.stages.read(x, KvCache.empty(dimensions))
    after = pipe.stages.read(x, pipe.stages.read(embeddings(3, seed=4), KvCache.empty(dimensions)).cache)
    assert np.abs(empty.logits - after.logits).max() > 0.01
