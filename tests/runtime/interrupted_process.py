"""A process that Ctrl-C reaches in the middle of its requests: interrupted_process.py BUNDLE prints JSON of what came.

Not the tests' own process: there the signal ended the whole run, twice in the same test, after thousands of others.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from mgcc_runtime import Pipeline
from tests.runtime.test_cancelling import CALL_S, IN_PIECES, PARTS, each_call

#: The calls of a request within which the signal is sent, and the seconds after which it comes wherever the request is.
CALLS = (1, 7, 30)
DELAYS_S = tuple(start_s + attempt * 0.0007 for start_s in (0.0, 0.002, 0.005, 0.01, 0.02) for attempt in range(4))


def within_a_call(pipeline: Pipeline, number: int) -> int:
    """Calls that a request began whose call of this number was interrupted."""

    def interrupt(_: str) -> None:
        if len(began) == number:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(CALL_S)

    with each_call(pipeline.stages, interrupt) as began, pytest.raises(KeyboardInterrupt):
        pipeline.generate(PARTS, words=6)
    return len(began)


def wherever_it_is(pipeline: Pipeline, delay_s: float) -> None:
    timer = threading.Timer(delay_s, signal.raise_signal, (signal.SIGINT,))
    with pytest.raises(KeyboardInterrupt):
        draw_until_interrupted(pipeline, timer)


def draw_until_interrupted(pipeline: Pipeline, timer: threading.Timer) -> None:
    timer.start()
    while True:
        pipeline.generate(["A cat."], words=3)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore interrupts
    with Pipeline.load(sys.argv[1], threads=1) as pipeline:
        for name in ("llm", "vision_encoder"):
            pipeline.stages.sessions[name].at_once = IN_PIECES
        expected = np.asarray(pipeline.generate(["A cat."]).image)
        calls = [within_a_call(pipeline, number) for number in CALLS]
        for delay_s in DELAYS_S:
            wherever_it_is(pipeline, delay_s)
        same = bool((np.asarray(pipeline.generate(["A cat."]).image) == expected).all())
        start_s = time.monotonic()
    sys.stdout.write(json.dumps({"calls": calls, "same": same, "closing_s": time.monotonic() - start_s}))


if __name__ == "__main__":
    main()
