"""Run requests through the runtime's pipeline and keep what each stage was given.

The UNet is kept at every denoising step; both branches of classifier-free guidance run inside its graph, so each
sample carries both. The language model is kept at its prefill, at the [IMG] tokens and at some of the decode steps.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from mgcc_calibration.data.requests import RequestSource, fitting_parts
from mgcc_calibration.data.samples import MANIFEST, CalibrationData, DataManifest, SampleEntry
from mgcc_calibration.errors import DataError
from mgcc_calibration.graphs.storage import graph_digests
from mgcc_runtime.bundle.folder import Bundle, sha256_of
from mgcc_runtime.contract import WITHOUT_WEIGHTS, StageSpec
from mgcc_runtime.engines import EngineOptions, Feed, Outputs, Session, host_array
from mgcc_runtime.files import write_atomically
from mgcc_runtime.pipeline import Pipeline
from mgcc_runtime.prompt import Part
from mgcc_runtime.results import Result

PHRASES = 4  # of a request
#: Called with (request from 1, requests in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CaptureOptions:
    """How much is captured. `steps` None: the bundle's default. `stages` empty: all."""

    seed: int = 0
    steps: int | None = None
    words: int = 12
    decode_every: int = 6  # of the decode steps of a text, each of which would carry the whole cache
    stages: tuple[str, ...] = ()
    threads: int = 0

    def __post_init__(self) -> None:
        if self.words < 0 or self.decode_every < 1:
            raise DataError(
                f"words is {self.words} and decode_every {self.decode_every}, expected at least 0 and 1; change them"
            )


class _Recorder:
    """Writes samples as they come."""

    def __init__(self, root: Path, options: CaptureOptions) -> None:
        self.root, self.options, self.request = root, options, 0
        self.entries: dict[str, list[SampleEntry]] = {}
        self._calls: Counter[str] = Counter()
        self._decode_steps = 0

    def start(self, request: int) -> None:
        self.request, self._decode_steps = request, 0
        self._calls.clear()

    def take(self, spec: StageSpec, feeds: Mapping[str, Feed]) -> None:
        call = self._calls[spec.name]
        self._calls[spec.name] += 1
        if not self._wanted(spec.name, feeds):
            return
        arrays = {t.name: host_array(feeds[t.name]) for t in spec.inputs}
        name = f"{spec.name}/{self.request:04d}-{call:04d}.npz"
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_atomically(self.root / name, buffer.getvalue())
        size, digest = buffer.getbuffer().nbytes, sha256_of(self.root / name)
        self.entries.setdefault(spec.name, []).append(SampleEntry(name, size, digest, self.request, call))

    def _wanted(self, stage: str, feeds: Mapping[str, Feed]) -> bool:
        if stage in WITHOUT_WEIGHTS or (self.options.stages and stage not in self.options.stages):
            return False
        if stage != "llm" or feeds["inputs_embeds"].shape[1] > 1:
            return True
        self._decode_steps += 1
        return (self._decode_steps - 1) % self.options.decode_every == 0


class _Tap:
    """Stands before a stage's session and shows the recorder what it is given."""

    def __init__(self, session: Session, recorder: _Recorder) -> None:
        self._session, self._recorder = session, recorder

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str] = ()) -> Outputs:
        self._recorder.take(self._session.spec, feeds)
        return self._session.run(feeds, keep)

    def __getattr__(self, name: str) -> Any:
        """Every other attribute is the session's own, also one that it gets later."""
        return getattr(self._session, name)


def _encode_phrases(pipeline: Pipeline, parts: Sequence[Part], result: Result) -> None:
    """Have the phrase encoder read what a request names: no request asks it unless a user gives boxes."""
    said = [box.label for box in result.boxes] + [word for word in pipeline.prompts.build(parts).words if word]
    for phrase in [*dict.fromkeys(said)][:PHRASES]:
        pipeline.phrases.embed(phrase)


def capture(
    bundle: Bundle, source: RequestSource, options: CaptureOptions, out: Path, progress: Progress = lambda *_: None
) -> CalibrationData:
    """Run every request and write its stages' inputs to the new folder `out`.

    DataError if that holds anything, or for a stage that the bundle lacks or that there is nothing to lower of.
    The same bundle, requests and options give the same samples, byte for byte, on the same machine.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty, expected a new folder; give another one or remove it")
    captured = [name for name in bundle.manifest.stages if name not in WITHOUT_WEIGHTS]
    if unknown := [name for name in options.stages if name not in captured]:
        raise DataError(f"the bundle has no stage {', '.join(unknown)} to calibrate; choose from {', '.join(captured)}")
    started = time.monotonic()
    steps = bundle.manifest.default_steps if options.steps is None else options.steps
    recorder = _Recorder(out, options)
    try:
        with Pipeline(bundle, EngineOptions(options.threads)) as pipeline:
            sessions = pipeline.stages.sessions
            for name, session in sessions.items():
                sessions[name] = cast(Session, _Tap(session, recorder))
            for i, request in enumerate(source.requests):
                progress(i + 1, len(source.requests))
                recorder.start(i)
                parts = fitting_parts(pipeline, request.parts, options.words)
                result = pipeline.generate(parts, seed=request.seed, steps=steps, words=options.words)
                if bundle.manifest.dimensions.phrase_encoder:
                    _encode_phrases(pipeline, parts, result)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    manifest = DataManifest(
        profile=bundle.manifest.profile,
        graphs=graph_digests(bundle),
        source=source.description,
        seed=options.seed,
        requests=len(source.requests),
        steps=steps,
        words=options.words,
        elapsed_s=round(time.monotonic() - started, 1),
        stages={stage: tuple(entries) for stage, entries in recorder.entries.items()},
    )
    write_atomically(out / MANIFEST, (json.dumps(manifest.to_json(), indent=1) + "\n").encode())
    return CalibrationData(out, manifest)
