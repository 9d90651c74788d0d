"""CUDA graphs of an engine's work, where they can be captured."""

from __future__ import annotations

import logging
from collections.abc import Collection

from mgcc_runtime.engines.tensorrt.contexts import Context
from mgcc_runtime.engines.tensorrt.cuda_stream import Graph, Stream
from mgcc_runtime.engines.tensorrt.features import Feature
from mgcc_runtime.errors import EngineError

_LOG = logging.getLogger(__name__)
#: After how many more occasions a capture that failed is tried again, and that it is tried at all: what another part of
#: the program did meanwhile may have spoilt it. What TensorRT itself cannot capture stays so: loops, conditionals and
#: shapes that depend on data.
_PATIENCE = (16, 256)


class Recorder:
    """Captures one engine's work. A graph saves launches and no more: an engine without one is slower, no worse."""

    def __init__(self, stage: str, stream: Stream, offered: Collection[Feature]) -> None:
        self._stage, self._stream = stage, stream
        self._asks = Feature.CAPTURE_QUESTION in offered  # else only the attempt shows it
        self._failures = self._waiting = 0

    def willing(self) -> bool:
        """Whether a capture should be tried on this occasion."""
        if self._failures > len(_PATIENCE):
            return False
        self._waiting -= 1
        return self._waiting < 0

    def record(self, context: Context) -> Graph | None:
        """A graph of the work of a settled context; None where it cannot be had now.

        Nothing of it has been queued then: the caller launches it plainly.
        """
        if self._asks and not context.capturable(self._stream.handle):
            self._fail("the library says that it cannot be captured")
            return None
        try:
            return self._stream.capture(lambda: context.enqueue(self._stream.handle))
        except (EngineError, RuntimeError) as error:  # the driver's, and what TensorRT's own calls raise
            self._fail(str(error))
            return None

    def _fail(self, why: str) -> None:
        last = self._failures >= len(_PATIENCE)
        self._waiting = 0 if last else _PATIENCE[self._failures]
        self._failures += 1
        _LOG.log(
            logging.WARNING if self._failures == 1 else logging.INFO,
            "stage %s is not captured as a CUDA graph and is launched kernel by kernel, which may be slower%s: %s",
            self._stage, "" if last else "; it is tried again later", why,
        )  # fmt: skip
