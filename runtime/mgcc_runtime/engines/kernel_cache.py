"""Kernels that TensorRT-RTX compiled for this GPU, kept over restarts: the first start compiles, the next ones read.

Keyed by the engine's content, the library's version, the GPU and its driver, so that none of them is ever mixed up.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from mgcc_runtime.engines.cuda import Device
from mgcc_runtime.engines.engine_record import EngineRecord
from mgcc_runtime.errors import OutputError
from mgcc_runtime.files import cache_folder, write_atomically

_LOG = logging.getLogger(__name__)
#: Above this, reading the cache may cost more than it saves (TensorRT-RTX 1.0's release notes).
_MOST_BYTES = 100 * 2**20


class KernelCache:
    """The kernels of one engine on one GPU."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cache: Any = None
        self._read = b""

    @classmethod
    def open(cls, record: EngineRecord, device: Device) -> KernelCache:
        key = "\0".join((record.sha256, record.version, device.name, device.compute_capability, device.driver_version))
        return cls(cache_folder() / "kernels" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.bin")

    def attach(self, config: Any) -> None:
        """Let contexts made with this runtime configuration use the cache; what is on disk is read once."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            try:
                self._read = self.path.read_bytes()
            except OSError:
                self._read = b""  # the first start, or an unreadable cache: compile
            if self._read and not self._cache.deserialize(self._read):
                _LOG.info("kernel cache %s is of no use here and is made again", self.path)
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the cache if it has grown; failing to is no error of the request."""
        if self._cache is None:
            return
        data = bytes(self._cache.serialize() or b"")
        if not data or data == self._read or len(data) > _MOST_BYTES:
            return
        try:
            write_atomically(self.path, data)
        except OutputError as error:
            _LOG.info("kernel cache not kept: %s", error)
