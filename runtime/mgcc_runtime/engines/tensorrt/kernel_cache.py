"""Kernels that TensorRT-RTX compiled for this GPU, kept over restarts: the first start compiles, the next ones read.

Keyed by the engine's content, the library's version, the GPU and its driver, so that none of them is ever mixed up.
They are written after first use and not when the engine is closed alone: a kiosk ends by its power being cut.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from mgcc_runtime.caches import cache_place
from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines.tensorrt.record import EngineRecord
from mgcc_runtime.errors import OutputError
from mgcc_runtime.files import write_atomically

_LOG = logging.getLogger(__name__)
#: Above this, reading the cache may cost more than it saves (TensorRT-RTX 1.0's release notes).
_MOST_BYTES = 100 * 2**20
_DIGEST_BYTES = 32
#: Looked at after the first run, and then when there were so many times more: some kernels come in the background.
_RARER = 8


class KernelCache:
    """The kernels of one engine on one GPU. Calls are made under the GPU's lock."""

    def __init__(self, path: Path | None) -> None:
        self.path = path  # None: there is no place for it
        self._cache: Any = None
        self._kept = b""  # what the file has
        self._runs = 0
        self._next_look = 1

    @classmethod
    def open(cls, record: EngineRecord, device: Device) -> KernelCache:
        key = "\0".join((record.sha256, record.version, device.name, device.compute_capability, device.driver_version))
        place = cache_place()
        return cls(place and place / "kernels" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.bin")

    def attach(self, config: Any) -> None:
        """Let contexts made with this runtime configuration use the cache; what is on disk is read once."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._kept = _read(self.path)
            if self._kept and not self._cache.deserialize(self._kept):
                _LOG.info("kernel cache %s is of no use here and is made again", self.path)
        config.set_runtime_cache(self._cache)

    def used(self) -> None:
        """Count a run of the engine; write the cache if it is time to look and something new was compiled."""
        self._runs += 1
        if self._runs >= self._next_look:
            self._next_look = self._runs * _RARER
            self.save()

    def save(self) -> None:
        """Write the cache if it has changed; failing to is no error of the request."""
        if self._cache is None or self.path is None:
            return
        found = self._cache.serialize()
        data = b"" if found is None else bytes(found)
        if not data or data == self._kept or len(data) > _MOST_BYTES:
            return
        try:
            write_atomically(self.path, hashlib.sha256(data).digest() + data)
            self._kept = data
        except OutputError as error:
            _LOG.info("kernel cache not kept: %s", error)


def _read(path: Path | None) -> bytes:
    """What a file has; nothing if there is none, or one that a power cut left half: native code reads it unchecked."""
    if path is None:
        return b""
    try:
        data = path.read_bytes()
    except OSError:
        return b""  # the first start, or an unreadable cache: compile
    digest, kernels = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return kernels if hashlib.sha256(kernels).digest() == digest else b""
