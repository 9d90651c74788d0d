"""For the exporter: calibration data of a bundle, those of an earlier build where they still fit."""

from __future__ import annotations

import shutil
from pathlib import Path

from mgcc_calibration.data.capture import CaptureOptions, Progress, capture
from mgcc_calibration.data.requests import storyworld_requests
from mgcc_calibration.data.samples import MANIFEST, CalibrationData
from mgcc_calibration.errors import DataError
from mgcc_calibration.graphs.storage import graph_digests
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import WITHOUT_WEIGHTS

STORIES = 8


def kept_or_captured(
    bundle: Bundle, folder: Path, options: CaptureOptions, stories: int = STORIES, progress: Progress = lambda *_: None
) -> CalibrationData:
    """The data in `folder`; those of other graphs, or captured in another way, are captured anew there.

    DataError if the folder holds something else.
    """
    found = _usable(bundle, folder, options, stories)
    if found is None:
        shutil.rmtree(folder, ignore_errors=True)
        found = capture(bundle, storyworld_requests(stories, options.seed), options, folder, progress)
    return found


def _usable(bundle: Bundle, folder: Path, options: CaptureOptions, stories: int) -> CalibrationData | None:
    """Data of the same graphs, seed and amount that have samples of every stage; None if there are none."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise DataError(f"{folder} is not empty and holds no calibration data; give another folder for it")
    try:
        data = CalibrationData.open(folder)
    except DataError:
        return None
    asked = (options.seed, stories, options.words)
    same = (data.manifest.seed, data.manifest.requests, data.manifest.words) == asked
    stages = [name for name in bundle.manifest.stages if name not in WITHOUT_WEIGHTS]
    complete = all(data.manifest.stages.get(name) for name in stages)  # older versions captured no phrases
    return data if same and complete and data.manifest.graphs == graph_digests(bundle) else None
