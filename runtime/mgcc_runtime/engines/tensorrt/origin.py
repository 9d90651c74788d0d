"""Engines that were built on another GPU of the same kind: they run, with kernels that were timed for the other.

An AGX Orin's engine passes the check on an Orin Nano, both being of compute capability 8.7, with twice the
multiprocessors and eight times the memory.
"""

from __future__ import annotations

import functools
import logging

from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines.tensorrt.record import EngineRecord, read_record
from mgcc_runtime.errors import EngineError
from mgcc_runtime.names import EngineName

_LOG = logging.getLogger(__name__)
#: Devices of one model differ by what their system keeps for itself.
_SAME_MEMORY = 0.125


def origin_remark(record: EngineRecord, device: Device) -> str:
    """One sentence where this GPU is not like the one that the engine was built on; empty where it is, or not known."""
    if record.library != EngineName.TENSORRT or not record.multiprocessors or not device.multiprocessors:
        return ""
    apart = abs(device.memory_bytes - record.gpu_memory_bytes) > _SAME_MEMORY * record.gpu_memory_bytes
    if device.multiprocessors == record.multiprocessors and not apart:
        return ""
    return (
        f"engines were built on a GPU with {_told(record.multiprocessors, record.gpu_memory_bytes)}, and "
        f"{device.name} has {_told(device.multiprocessors, device.memory_bytes)}: they run, but were timed and given "
        f"room for the other; rebuild them here with `{record.rebuild}`"
    )


def _told(multiprocessors: int, memory_bytes: int) -> str:
    return f"{multiprocessors} multiprocessors and {memory_bytes / 2**30:.1f} GiB"


@functools.cache
def warn_once(remark: str) -> None:
    """Log a remark, once for all stages of a bundle."""
    _LOG.warning("%s", remark)


def bundle_remark(bundle: Bundle) -> str:
    """The remark on a bundle's engines; empty for one without, or where there is no GPU to compare with."""
    engines = [graph for graph in bundle.manifest.graphs().values() if graph.engine == EngineName.TENSORRT]
    if not engines:
        return ""
    try:
        device = Device.named()
    except EngineError:
        return ""
    return origin_remark(read_record(bundle.file(engines[0].file)), device)
