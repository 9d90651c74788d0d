"""Whole pictures as the judge of a candidate: how many requests still get the fp32 bundle's picture.

A stage's own signal to noise says little of that: the vision tower's in int8 is 32 dB, and a fifth of the pictures have
things a few pixels from where they were, or others; the language model's 27 dB changes none of 30, two of 48
others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from mgcc_calibration.analysis.sensitivity import draw
from mgcc_calibration.candidates.candidate import Candidate
from mgcc_calibration.data.requests import Request, storyworld_requests
from mgcc_calibration.graphs.edit import Array
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.measure.similarity import psnr_db
from mgcc_runtime.pipeline import Pipeline

#: PSNR from which a picture counts as the same one. Of 30 pictures drawn with the vision tower in int8, 6 are below it:
#: each has a box 3 to 6 of 128 pixels off, and one an object more.
SAME_PICTURE_DB = 20.0
#: The judged stories are this far in seed from those that ranges were captured from.
_JUDGED_STORIES = 2_000_000


class ImageJudge:
    """Draws requests with one stage's candidate in the bundle; the bundle's own pictures are drawn once."""

    def __init__(
        self,
        bundle: Bundle,
        requests: Sequence[Request],
        *,
        threads: int = 0,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._bundle, self._requests, self._options, self._progress = bundle, requests, EngineOptions(threads), progress
        self._exact: list[Array] | None = None

    @property
    def identity(self) -> str:
        """A digest of all that a share depends on besides the candidate: bundle, requests and threshold."""
        files = sorted((name, entry.sha256) for name, entry in self._bundle.manifest.files.items())
        digest = hashlib.sha256(repr((files, SAME_PICTURE_DB)).encode())
        for request in self._requests:
            digest.update(str(request.seed).encode())
            for part in request.parts:
                digest.update(part.encode() if isinstance(part, str) else np.asarray(part).tobytes())
        return digest.hexdigest()

    def share(self, spec: StageSpec, candidate: Candidate) -> float:
        """Share of the requests whose picture stays the same with the candidate as the stage `spec`."""
        assert candidate.path is not None  # what could not be made is refused before it is judged
        with Pipeline(self._bundle, self._options) as pipeline:
            if self._exact is None:
                self._exact = self._drawn(pipeline, "fp32")
            session = open_session(candidate.engine.value, candidate.path, spec, self._options)
            own = pipeline.stages.sessions[spec.name]
            pipeline.stages.sessions[spec.name] = session
            try:
                found = self._drawn(pipeline, f"{candidate.engine} {candidate.precision}")
            finally:
                pipeline.stages.sessions[spec.name] = own
                session.close()
        same = [psnr_db(a, b) >= SAME_PICTURE_DB for a, b in zip(found, self._exact, strict=True)]
        return sum(same) / len(same)

    def _drawn(self, pipeline: Pipeline, what: str) -> list[Array]:
        images = []
        for i, request in enumerate(self._requests, start=1):
            if i % 10 == 1:
                self._progress(f"judging {what}: picture {i} of {len(self._requests)}")
            images += draw(pipeline, [request], None)
        return images


def judged_requests(count: int, seed: int) -> tuple[Request, ...]:
    """Stories of the training split that neither ranges nor scores are taken from."""
    return storyworld_requests(count, seed + _JUDGED_STORIES).requests
