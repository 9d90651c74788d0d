"""The calls of the CUDA driver: their signatures against CUDA's headers, contexts of threads, what memory is free."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

from mgcc_runtime.device import cuda_driver
from mgcc_runtime.device.cuda_driver import SIGNATURES, Device, Driver
from mgcc_runtime.engines.tensorrt import cuda_memory, cuda_stream
from mgcc_runtime.engines.tensorrt.cuda_memory import Buffer, PinnedBuffer, free_memory_bytes
from mgcc_runtime.errors import EngineError
from tests.runtime.host_gpu import C_TYPES, CONSTANTS, CONTEXT, RELEASES, HostDriver, facts


@pytest.mark.parametrize("release", RELEASES)
def test_functions_are_called_as_the_header_declares_them(release):
    declared = facts(release)["functions"]
    assert {*SIGNATURES} == {*declared}, "run tools/read_cuda_api.py"
    for name, arguments in SIGNATURES.items():
        assert list(arguments) == [C_TYPES[told] for told in declared[name]], name


@pytest.mark.parametrize("release", RELEASES)
def test_numbers_are_those_of_the_header(release):
    values = facts(release)["constants"]
    ours = {
        "CUDA_ERROR_OUT_OF_MEMORY": cuda_driver._OUT_OF_MEMORY,
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": cuda_driver._MAJOR,
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": cuda_driver._MINOR,
        "CU_DEVICE_ATTRIBUTE_INTEGRATED": cuda_driver._INTEGRATED,
        "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": cuda_stream._THREAD_LOCAL,
        "CU_STREAM_NON_BLOCKING": cuda_stream._NON_BLOCKING,
    }
    assert ours == {name: values[name] for name in ours}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("cuMemAlloc_v2", (ctypes.POINTER(ctypes.c_uint64),)),
        ("cuMemAlloc_v2", (ctypes.POINTER(ctypes.c_uint64), ctypes.c_int)),
        ("cuMemcpyDtoDAsync_v2", (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t)),
    ],
)
def test_the_hosts_driver_refuses_another_signature(monkeypatch, name, wrong):
    monkeypatch.setitem(SIGNATURES, name, wrong)
    with pytest.raises(TypeError, match=f"{name} takes"):
        HostDriver().driver()


def test_the_hosts_driver_lacks_what_the_header_lacks(monkeypatch):
    monkeypatch.setitem(SIGNATURES, "cuMemAllocEverything", ())
    with pytest.raises(KeyError, match="cuMemAllocEverything"):
        HostDriver().driver()


@pytest.fixture
def host(monkeypatch):
    driver = HostDriver()
    api = driver.driver()
    monkeypatch.setattr(cuda_driver, "driver", lambda: api)
    yield driver
    assert not driver.faults


@pytest.mark.parametrize("kind", [Buffer, PinnedBuffer])
def test_memory_is_freed_in_a_thread_that_has_no_context(host, kind):
    """The last tensor of a closed engine may go in any thread: the garbage collector's choice."""
    device = Device.first()
    held = [kind(1000, device.context)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert not host.blocks and not host.pinned


def test_a_thread_keeps_the_context_that_it_had(host):
    """A program around ours works in a context of its own there."""
    device, seen = Device.first(), []
    held = [Buffer(1000, device.context)]

    def work():
        driver: Driver = cuda_driver.driver()
        driver.call("cuCtxSetCurrent", 99)
        held.clear()
        seen.extend(host._contexts())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [99] and host._contexts() == [CONTEXT] and not host.blocks


def test_a_call_without_a_context_fails(host):
    """What holds the two tests above: the stand-in does mind."""
    with pytest.raises(EngineError, match=rf"failed with {CONSTANTS['CUDA_ERROR_INVALID_CONTEXT']}"):
        Buffer(10, 0)


@pytest.mark.parametrize(
    ("integrated", "available", "expected"),
    [(False, 900, 600), (True, 900, 900), (True, 500, 600), (True, 5000, 1000)],
)
def test_memory_that_the_system_would_give_back_counts_where_it_is_the_gpus(
    monkeypatch, integrated, available, expected
):
    """On a Jetson it is the GPU's: much of it is the system's cache of files, an engine's own file among them."""
    host = HostDriver(1000, integrated=integrated)
    api = host.driver()
    monkeypatch.setattr(cuda_driver, "driver", lambda: api)
    monkeypatch.setattr(cuda_memory, "available_memory_bytes", lambda: available)
    device = Device.first()
    assert device.integrated is integrated
    held = Buffer(400, device.context)
    assert free_memory_bytes(device) == expected
    held.free()


def test_pinned_memory_is_an_array(host):
    device = Device.first()
    pinned = PinnedBuffer(64, device.context)
    pinned.view((2, 3), np.dtype(np.float16))[:] = 7
    np.testing.assert_array_equal(pinned.view((6,), np.dtype(np.float16)), np.full(6, 7, np.float16))
    pinned.free()
    pinned.free()
    assert not host.pinned
