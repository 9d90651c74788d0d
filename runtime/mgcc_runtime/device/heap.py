"""Memory that native libraries freed, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def return_freed_memory() -> bool:
    """Give the system the pages that are free inside the process's heap; False where the C library cannot (not glibc).

    Engines allocate while they read and pack weights, and free it again; glibc keeps the pages. After loading `story`
    that was 75 MB of 762 with OpenVINO's UNet, and 41 of 757 with ONNX Runtime alone. It took 8 and 5 ms.
    """
    if sys.platform != "linux":
        return False
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return bool(trim(0))
