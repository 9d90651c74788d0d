"""Slabs: their sizes, that they are used again, and that what lies idle is bounded."""

from __future__ import annotations

import numpy as np
import pytest

from mgcc_runtime.contract import DType
from mgcc_runtime.engines.tensorrt import slabs
from mgcc_runtime.engines.tensorrt.device_memory import NUMPY_TYPES, GpuMemory
from mgcc_runtime.engines.tensorrt.slabs import ALIGNMENT, SlabPlan, SlabPool, slab_size
from tests.runtime.releases import TENSORRT

KIB = 2**10
pytestmark = pytest.mark.parametrize("release", TENSORRT[-1:], ids=str, indirect=True)  # asks nothing of the library


@pytest.fixture
def pool(host, monkeypatch):
    """A thousandth of a GPU's: the host's memory is written to."""
    monkeypatch.setattr(slabs, "_LEAST_IDLE", 64 * KIB)
    monkeypatch.setattr(slabs, "_LEAST_SLAB", 64)
    return SlabPool(GpuMemory().allocate)


def test_plans_and_sizes(release):
    plan = SlabPlan.of({"a": 1, "b": 0, "c": 1000})
    assert plan.offsets == {"a": 0, "b": ALIGNMENT, "c": 2 * ALIGNMENT}
    assert plan.size == 2 * ALIGNMENT + 1024
    sizes = [slab_size(n) for n in range(70_000, 140_000, 500)]
    assert all(s >= n for s, n in zip(sizes, range(70_000, 140_000, 500), strict=True))
    assert len(set(sizes)) <= 6
    assert set(NUMPY_TYPES.values()) >= {np.dtype(t.value) for t in DType}


def test_a_slab_is_used_again(host, pool):
    first = pool.take(KIB)
    address = first.buffer.address
    del first
    again = pool.take(KIB)
    assert again.buffer.address == address and host.calls.count("cuMemAlloc_v2") == 1
    del again


def test_a_growing_cache_leaves_no_gigabytes_behind(host, pool):
    """Two slabs in turn, each position larger, through prompts of many lengths: idle is no more than is in use."""
    held = None
    for length in (100, 300, 500, 250, 900, 120, 700, 1000):
        held = None
        for step in range(24):
            size = (length + step) * KIB // 8
            held = pool.take(size)
            assert host.allocated <= max(64 * KIB, 2 * slab_size(size)) + 2 * slab_size(size)
    del held


def test_other_stages_small_slabs_let_a_large_idle_one_go(host, pool):
    large = pool.take(200 * KIB)
    del large
    assert pool.idle_bytes >= 200 * KIB
    small = pool.take(KIB)
    assert pool.idle_bytes == 0 and host.allocated == slab_size(KIB)
    del small


def test_a_slab_that_comes_back_during_a_capture_frees_nothing(host, pool):
    """It may come back at any time, when the last tensor in it goes; to free memory would spoil the capture."""
    large, small = pool.take(200 * KIB), pool.take(KIB)
    host.calls.clear()
    del large, small
    assert "cuMemFree_v2" not in host.calls
    pool.trim()
    assert host.calls.count("cuMemFree_v2") == 2 and not host.blocks


def test_a_closed_pool_frees_what_comes_back(host, pool):
    held, idle = pool.take(KIB), pool.take(KIB)
    del idle
    pool.close()
    assert len(host.blocks) == 1
    del held
    assert not host.blocks
