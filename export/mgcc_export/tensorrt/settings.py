"""What TensorRT's builder is told of the device: how much memory a kernel may use, and what it timed there before."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgcc_runtime.caches import writable_cache
from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines.tensorrt.cuda_memory import free_memory_bytes
from mgcc_runtime.errors import OptionError, OutputError
from mgcc_runtime.files import write_atomically

_LOG = logging.getLogger(__name__)
#: Of the memory that is free, what a kernel may use for itself. A Jetson's is the system's too: there the builder's own
#: process, with up to nine bytes a weight, lives in it beside the kernel that it times. The library's default is all of
#: it. Which share is fastest only a device can tell: tests/gpu/test_builder_settings.py.
_SHARE_INTEGRATED, _SHARE = 0.25, 0.75
#: No less, as far as that much is there: below it fast kernels of small stages are passed over, too.
_LEAST_BYTES = 64 * 2**20
_MIB = 2**20
_NONE = "none"


@dataclass(frozen=True)
class BuilderSettings:
    """For all engines of one build."""

    workspace_bytes: int = 0  # 0: the library's default
    timing_cache: str = ""  # a file; empty: none
    kept_by: str = ""  # engines of an interrupted build are gone on with where this is the same

    def told(self) -> str:
        """In words."""
        room = f"{self.workspace_bytes // _MIB} MiB" if self.workspace_bytes else "the library's default"
        return f"workspace {room}, kernel times {f'kept in {self.timing_cache}' if self.timing_cache else 'not kept'}"


@dataclass(frozen=True)
class AskedSettings:
    """What the command line asks for; None where it leaves the choice to the device."""

    workspace_mib: int | None = None
    timing_cache: Path | None = None
    keep_times: bool = True

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise OptionError(f"--workspace is {self.workspace_mib}, expected 1 MiB or more; leave it out if unsure")

    @classmethod
    def of(cls, options: argparse.Namespace) -> AskedSettings:
        """What `add_settings` has read; OptionError."""
        times: str | None = options.timing_cache
        return cls(options.workspace, Path(times) if times and times != _NONE else None, times != _NONE)


LEFT_TO_THE_DEVICE = AskedSettings()


def add_settings(parser: argparse._ActionsContainer) -> None:
    """The options of a command that builds engines on the device."""
    parser.add_argument(
        "--workspace", type=int, metavar="MIB", help="the most memory that a kernel of an engine may use for itself; "
        "unset: a quarter of what is free on a Jetson, whose memory is the system's too, else three quarters",
    )  # fmt: skip
    parser.add_argument(
        "--timing-cache", metavar=f"FILE|{_NONE}", help="where TensorRT keeps what it timed for the next build; unset: "
        "in $MGCC_CACHE or the system's folder for caches, by TensorRT's version and the device",
    )  # fmt: skip


def choose_settings(asked: AskedSettings, version: str) -> BuilderSettings:
    """What to build with on this device, by a TensorRT of this version. EngineError where there is no GPU."""
    device = Device.first()
    room = default_workspace_bytes(device) if asked.workspace_mib is None else asked.workspace_mib * _MIB
    kept_by = " ".join((*_identity(device), str(asked.workspace_mib)))
    if not asked.keep_times:
        return BuilderSettings(room, "", kept_by)
    place = asked.timing_cache.absolute() if asked.timing_cache else _timings_of(device, version)
    return BuilderSettings(room, str(place) if place else "", kept_by)


def default_workspace_bytes(device: Device) -> int:
    """A share of what is free now, whole MiB."""
    free = free_memory_bytes(device)
    share = _SHARE_INTEGRATED if device.integrated else _SHARE
    return max(int(free * share), min(_LEAST_BYTES, free)) // _MIB * _MIB


def _timings_of(device: Device, version: str) -> Path | None:
    """The file of this library's version on this device and driver; None where nothing can be kept."""
    folder = writable_cache("timings")
    key = "\0".join((version, *_identity(device)))
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.bin" if folder else None


def _identity(device: Device) -> tuple[str, ...]:
    return (
        device.name, device.compute_capability, str(device.multiprocessors), str(device.memory_bytes),
        device.driver_version,
    )  # fmt: skip


class TimingCache:
    """Times of kernels in a file: read before an engine is built, written after, so that none is timed twice.

    TensorRT itself holds a file against its version and device. One that it does not take, or that cannot be read or
    written, is as good as none: a cache is never a reason to fail.
    """

    def __init__(self, config: Any, path: str) -> None:
        self._config, self._path, self._read = config, Path(path), b""
        with contextlib.suppress(OSError):  # the first engine
            self._read = self._path.read_bytes()
        self.used = bool(self._read) and self._attach(self._read)
        if not self.used:
            self._attach(b"")

    def _attach(self, blob: bytes) -> bool:
        cache = self._config.create_timing_cache(blob)
        return cache is not None and bool(self._config.set_timing_cache(cache, ignore_mismatch=False))

    def keep(self) -> None:
        """Write what is known now, in one step."""
        cache = self._config.get_timing_cache()
        data = bytes(cache.serialize() or b"") if cache is not None else b""
        if not data or data == self._read:
            return
        try:
            write_atomically(self._path, data)
        except OutputError as error:
            _LOG.info("kernel times not kept: %s", error)
