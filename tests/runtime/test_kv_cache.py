"""The cache is a value: reading in pieces is reading at once, and an older cache stays usable."""

import numpy as np

from mgcc_runtime.kv_cache import KvCache
from tests.runtime.tiny_bundle import DIMENSIONS

TOLERANCE = 1e-5  # sums in another order


def embeddings(length, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (1, length, DIMENSIONS.hidden)).astype(np.float32)


def test_in_pieces_equals_at_once(pipe):
    x = embeddings(9)
    whole = pipe.stages.read(x, KvCache.empty(DIMENSIONS))
    first = pipe.stages.read(x[:, :4], KvCache.empty(DIMENSIONS))
    second = pipe.stages.read(x[:, 4:], first.cache)
    assert (first.cache.length, second.cache.length, whole.cache.length) == (4, 9, 9)
    np.testing.assert_allclose(second.logits, whole.logits, atol=TOLERANCE)
    features = np.concatenate([first.features, second.features], 1)
    np.testing.assert_allclose(features, whole.features, atol=TOLERANCE)


def test_going_on_from_an_older_cache(pipe):
    start = pipe.stages.read(embeddings(5), KvCache.empty(DIMENSIONS))
    once = pipe.stages.read(embeddings(2, seed=1), start.cache)
    pipe.stages.read(embeddings(7, seed=2), start.cache)
    pipe.stages.read(embeddings(7, seed=3), once.cache)
    again = pipe.stages.read(embeddings(2, seed=1), start.cache)
    np.testing.assert_array_equal(once.logits, again.logits)


def test_cache_matters(pipe):
    """The check above would pass for a cache that is ignored."""
    x = embeddings(2)
    empty = pipe.stages.read(x, KvCache.empty(DIMENSIONS))
    after = pipe.stages.read(x, pipe.stages.read(embeddings(3, seed=4), KvCache.empty(DIMENSIONS)).cache)
    assert np.abs(empty.logits - after.logits).max() > 0.01
