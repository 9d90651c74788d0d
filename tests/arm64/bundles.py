"""Bundles that ONNX Runtime plays, made here in each precision and kept in build/."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.names import MANIFEST

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
#: Precision of a bundle -> what `mgcc_calibration build --precision` is asked for; the others the exporter makes.
LOWER = {"int8": "int8", "int8-weights": "int8-weights", "int4-weights": "int4-weights"}
#: One round of timing, plain ranges, nothing judged: which graph is the fastest here is not in question.
_QUICK = ("--rounds", "1", "--images", "0", "--judged", "0", "--tokens", "1", "--threads", "1")


@dataclass(frozen=True)
class Source:
    """A profile and how much of it calibration sees."""

    profile: str
    requests: int


#: The same in every worker of a run; without workers, of this process.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
TINY = Source("tiny", 1)
STORY = Source("story", 2)


@functools.cache
def build_bundle(source: Source, precision: str) -> Path:
    """The bundle's folder, named as `make demo` names it: made once in a run of the tests, by whoever asks first."""
    out = BUILD / f"{source.profile}-cpu-{precision}"
    fp32 = build_bundle(source, "fp32") if precision in LOWER else out
    made_in = BUILD / f"{out.name}.run"
    with FileLock(BUILD / f"{source.profile}.lock"):
        if not made_in.exists() or made_in.read_text() != _RUN:
            if precision in LOWER:
                _lower(source, precision, fp32, out)
            else:
                _export(source, precision, out)
            made_in.write_text(_RUN)
    return out


def _export(source: Source, precision: str, out: Path) -> None:
    options = ("--profile", source.profile, "--target", "cpu", "--precision", precision)
    _call("export/build_engines.py", *options, "--out", out)


def _lower(source: Source, precision: str, fp32: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)  # of an earlier run
    data = BUILD / f"{source.profile}-calibration-{sha256_of(fp32 / MANIFEST)[:12]}"
    if not data.exists():
        asked = ("--requests", str(source.requests), "--words", "4")
        _call("-m", "mgcc_calibration", "capture", "--bundle", fp32, "--out", data, *asked)
    options = ("--precision", LOWER[precision], "--engines", "onnxruntime", *_QUICK)
    _call("-m", "mgcc_calibration", "build", "--bundle", fp32, "--data", data, "--out", out, *options)


def _call(*words: str | Path) -> None:
    BUILD.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
