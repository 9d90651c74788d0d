"""A queue of work on the GPU, and work that was recorded in one to be launched again."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from mgcc_runtime.device import cuda_driver
from mgcc_runtime.device.cuda_driver import Driver

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING

_Pointer = ctypes.c_void_p


class Stream:
    """A queue of work on the GPU.

    It does not wait for the context's default stream, nor that for it: what a program around ours queues there would
    otherwise become part of a capture, and spoil it.
    """

    def __init__(self) -> None:
        self._api, handle = cuda_driver.driver(), _Pointer()
        self._api.call("cuStreamCreate", ctypes.byref(handle), _NON_BLOCKING)
        self.handle = int(handle.value or 0)

    def upload(self, address: int, source: int, size: int) -> None:
        """Queue a copy of `size` bytes from the host address `source`, which must live until `synchronize`."""
        if size:
            self._api.call("cuMemcpyHtoDAsync_v2", address, source, size, self.handle)

    def download(self, target: int, address: int, size: int) -> None:
        """Queue a copy of `size` bytes to the host address `target`."""
        if size:
            self._api.call("cuMemcpyDtoHAsync_v2", target, address, size, self.handle)

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy of `size` bytes within the GPU's memory."""
        if size:
            self._api.call("cuMemcpyDtoDAsync_v2", target, source, size, self.handle)

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        self._api.call("cuStreamSynchronize", self.handle)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what `work` queues, without running it; EngineError, with the stream as before, if it cannot be."""
        graph, made = _Pointer(), _Pointer()
        self._api.call("cuStreamBeginCapture_v2", self.handle, _THREAD_LOCAL)
        try:
            try:
                work()
            finally:  # in any case, or the stream would record from here on and run nothing
                self._api.call("cuStreamEndCapture", self.handle, ctypes.byref(graph))
            self._api.call("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, 0)
        finally:
            if graph.value:  # a capture that failed may have left none
                self._api.call("cuGraphDestroy", graph)
        return Graph(self._api, int(made.value or 0), self.handle)

    def close(self) -> None:
        if self.handle:
            handle, self.handle = self.handle, 0
            self._api.call("cuStreamDestroy_v2", handle)


class Graph:
    """Recorded work: one launch instead of one for each kernel."""

    def __init__(self, api: Driver, handle: int, stream: int) -> None:
        self._api, self.handle, self._stream = api, handle, stream

    def launch(self) -> None:
        self._api.call("cuGraphLaunch", self.handle, self._stream)

    def close(self) -> None:
        if self.handle:
            handle, self.handle = self.handle, 0
            self._api.call("cuGraphExecDestroy", handle)
