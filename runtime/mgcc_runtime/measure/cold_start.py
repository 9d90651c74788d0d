"""Cold start: from the start of a process to its first image, each time in a process of its own.

Both processes read the system's monotonic clock, so their times can be subtracted. The files of the bundle are as
the system has cached them: after the first start they come from memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

_STARTED_S = time.monotonic()  # before any import of weight

if TYPE_CHECKING:
    from mgcc_runtime.prompt import Part

#: Ends of the phases of a start, in order.
PHASES = ("interpreter", "imports", "load", "first_image")


def start_cold(
    bundle: Path, parts: Sequence[Part], *, steps: int, words: int, seed: int, threads: int
) -> dict[str, float]:
    """One start: milliseconds of each phase, their sum "total", and the process's "peak_rss_mb".

    EngineError with what the process said if it fails.
    """
    from mgcc_runtime.errors import EngineError
    from mgcc_runtime.story import story_json

    with tempfile.TemporaryDirectory(prefix="mgcc-cold-") as folder:
        request = {
            "bundle": str(bundle.resolve()), "threads": threads,
            "story": story_json([_stored(part, Path(folder) / f"{i}.png") for i, part in enumerate(parts)]),
            "options": {"steps": steps, "words": words, "seed": seed},
        }  # fmt: skip
        # the child must find this very package, also where it is not installed
        search = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
        command = [sys.executable, "-m", "mgcc_runtime.measure.cold_start"]
        start_s = time.monotonic()
        done = subprocess.run(
            command, input=json.dumps(request), env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise EngineError(f"the process for the cold start ended with {done.returncode} ({said}); run `mgcc verify`")
    marks = json.loads(done.stdout)
    ends = [start_s, *(marks[phase] for phase in PHASES)]
    phases = {phase: round((end - begin) * 1e3, 3) for phase, begin, end in zip(PHASES, ends, ends[1:], strict=False)}
    return {**phases, "total": round((ends[-1] - start_s) * 1e3, 3), "peak_rss_mb": marks["peak_rss_mb"]}


def _stored(part: Part, path: Path) -> str | Path:
    """A text, or the path of an image; one that is in memory goes to `path`."""
    from PIL import Image

    from mgcc_runtime.images.conversion import load_image

    if isinstance(part, str):
        return part
    if isinstance(part, Image.Image):
        load_image(part).save(path)
        return path
    return Path(part).resolve()


def _draw_once(request: dict[str, Any]) -> dict[str, Any]:
    """What the process of a start does: the marks of its phases, in seconds of the monotonic clock."""
    marks: dict[str, Any] = {"interpreter": _STARTED_S}
    from mgcc_runtime.machine import peak_rss_mb
    from mgcc_runtime.pipeline import Pipeline
    from mgcc_runtime.story import parse_story

    marks["imports"] = time.monotonic()
    parts = parse_story(request["story"], Path(), "the request")
    with Pipeline.load(request["bundle"], threads=request["threads"]) as pipeline:
        marks["load"] = time.monotonic()
        pipeline.generate(parts, **request["options"])
        marks["first_image"] = time.monotonic()
        marks["peak_rss_mb"] = peak_rss_mb()
    return marks


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_draw_once(json.load(sys.stdin))))
