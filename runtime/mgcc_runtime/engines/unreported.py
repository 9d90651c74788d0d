"""Engines that report their use to whoever made them: not from here, unless the host program asks for it.

Nobody in front of a kiosk was asked. And what is sent takes threads, and files below a home that there may not be:
OpenVINO 2026 cannot be imported without a home; ONNX Runtime 1.32 starts a thread at import, and at the end of a forked
child waits for it in vain.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OF_OPENVINO = "openvino_telemetry"
_OF_ONNXRUNTIME = "ORT_DISABLE_TELEMETRY"


def keep_onnxruntime_quiet() -> None:
    """Before its import; a value that the host program has set stays."""
    os.environ.setdefault(_OF_ONNXRUNTIME, "1")


@contextmanager
def unreported() -> Iterator[None]:
    """For the import of OpenVINO, which has a stub for where its package of telemetry is not installed."""
    if _OF_OPENVINO in sys.modules:  # the host program's own import came first
        yield
        return
    sys.modules[_OF_OPENVINO] = None  # type: ignore[assignment]  # Python's way to say that there is none
    try:
        yield
    finally:
        del sys.modules[_OF_OPENVINO]
