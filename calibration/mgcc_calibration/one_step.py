"""For the exporter: from an fp32 bundle to one of lower precision in one call, calibration data and all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mgcc_calibration.build import BuildOptions, build_low
from mgcc_calibration.capture import CaptureOptions, capture
from mgcc_calibration.data import MANIFEST, CalibrationData
from mgcc_calibration.errors import DataError
from mgcc_calibration.graph import graph_digests
from mgcc_calibration.report import Report
from mgcc_calibration.requests import storyworld_requests
from mgcc_calibration.stage_store import StageStore
from mgcc_runtime.bundle import Bundle
from mgcc_runtime.contract import WITHOUT_WEIGHTS


@dataclass(frozen=True)
class LowerOptions:
    """What is asked for, and how much is captured for it."""

    build: BuildOptions = field(default_factory=BuildOptions)
    requests: int = 8
    words: int = 12
    seed: int = 0


def lower_bundle(
    source: Path,
    out: Path,
    data: Path,
    options: LowerOptions = LowerOptions(),
    progress: Callable[[str, str], None] = lambda *_: None,
    store: StageStore | None = None,
) -> Report:
    """Write the bundle `out` from the fp32 bundle `source`; calibration data in `data` is used again if it still fits.

    Data that was captured from other graphs, or in another way, is captured anew. `store` as for `build_low`.
    """
    bundle = Bundle.open(source)
    found = _usable(bundle, data, options)
    if found is None:
        shutil.rmtree(data, ignore_errors=True)
        settings = CaptureOptions(seed=options.seed, words=options.words, threads=options.build.threads)
        found = capture(
            bundle, storyworld_requests(options.requests, options.seed), settings, data,
            lambda i, n: progress("calibration", f"request {i} of {n}"),
        )  # fmt: skip
    return build_low(bundle, found, out, options.build, progress=progress, store=store)


def _usable(bundle: Bundle, folder: Path, options: LowerOptions) -> CalibrationData | None:
    """Data of the same graphs, seed and amount that have samples of every stage; None if there are none.

    DataError if the folder holds something else.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise DataError(f"{folder} is not empty and holds no calibration data; give another folder for it")
    try:
        data = CalibrationData.open(folder)
    except DataError:
        return None
    asked = (options.seed, options.requests, options.words)
    same = (data.manifest.seed, data.manifest.requests, data.manifest.words) == asked
    stages = [name for name in bundle.manifest.stages if name not in WITHOUT_WEIGHTS]
    complete = all(data.manifest.stages.get(name) for name in stages)  # older versions captured no phrases
    return data if same and complete and data.manifest.graphs == graph_digests(bundle) else None
