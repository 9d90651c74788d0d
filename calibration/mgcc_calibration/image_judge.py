"""Whole images as the judge of a candidate: PSNR against the fp32 bundle's, from the same noise."""

from __future__ import annotations

from collections.abc import Sequence

from mgcc_calibration.choose import Judge
from mgcc_calibration.forms import Candidate
from mgcc_calibration.graph import Array
from mgcc_calibration.requests import Request
from mgcc_calibration.sensitivity import draw, mean_psnr_db
from mgcc_runtime.bundle import Bundle
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.pipeline import Pipeline


class ImageJudge:
    """Draws the requests with one stage's candidate in the bundle; the bundle's own images are drawn once."""

    def __init__(self, bundle: Bundle, requests: Sequence[Request], *, threads: int = 0) -> None:
        self._bundle, self._requests, self._options = bundle, requests, EngineOptions(threads)
        self._exact: list[Array] | None = None

    def for_stage(self, spec: StageSpec) -> Judge:
        """A function of a candidate: the mean PSNR in dB."""
        return lambda candidate: self._score(spec, candidate)

    def _score(self, spec: StageSpec, candidate: Candidate) -> float:
        assert candidate.path is not None  # what could not be made is refused before it is judged
        with Pipeline(self._bundle, self._options) as pipeline:
            if self._exact is None:
                self._exact = draw(pipeline, self._requests, None)
            session = open_session(candidate.engine.value, candidate.path, spec, self._options)
            own = pipeline.stages.sessions[spec.name]
            pipeline.stages.sessions[spec.name] = session
            try:
                return mean_psnr_db(draw(pipeline, self._requests, None), self._exact)
            finally:
                pipeline.stages.sessions[spec.name] = own
                session.close()
