"""An execution context's work: queued, or recorded as a CUDA graph where that is possible."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from mgcc_runtime.engines.cuda import Graph, Stream
from mgcc_runtime.engines.tensorrt_features import Feature
from mgcc_runtime.errors import EngineError

_LOG = logging.getLogger(__name__)


def enqueue(context: Any, stream: int, stage: str) -> None:
    """Queue a context's work; EngineError if it cannot be started."""
    if not context.execute_async_v3(stream):
        raise EngineError(
            f"stage {stage} could not be started on the GPU; start this program again, and run `mgcc verify` if it "
            "happens again"
        )


class Recorder:
    """Records one engine's work as CUDA graphs, until it refuses once: from then on `willing` is false.

    A graph saves launches and nothing else, so that an engine without one is slower and no worse. What cannot be
    recorded once cannot the next time: TensorRT's documentation names loops, conditionals and shapes that depend on
    data, which are in the engine.
    """

    def __init__(self, stage: str, stream: Stream, offered: Collection[Feature]) -> None:
        self._stage, self._stream = stage, stream
        self._asks = Feature.CAPTURE_QUESTION in offered  # else only the attempt shows it
        self.willing = True

    def record(self, context: Any) -> Graph | None:
        """A graph of the context's work, which has run once with these shapes and addresses; None without one.

        Nothing of it has been queued then: the caller launches it plainly.
        """
        if self.willing and self._asks:
            self.willing = bool(context.is_stream_capturable(self._stream.handle))
        if not self.willing:
            return None
        try:
            return self._stream.capture(lambda: enqueue(context, self._stream.handle, self._stage))
        except (EngineError, RuntimeError) as error:  # the driver's, and what TensorRT's own calls raise
            self.willing = False
            _LOG.warning(
                "stage %s cannot be recorded as a CUDA graph and is launched kernel by kernel, which may be slower: %s",
                self._stage, error,
            )  # fmt: skip
            return None
