"""Bundles that the exporter really wrote, for all tests: each built once for the whole run, whatever the workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
PROFILES = ("tiny", "tiny-fast", "paper-tiny")


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder of this run that all its workers see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


def exported_bundle(
    profile: str, tmp_path_factory: pytest.TempPathFactory, target: str = "cpu", precision: str = "fp32"
) -> Path:
    """The profile's bundle for the CPU in fp32, or another target's, made by the README's command. Tests only read it.

    The first worker that asks for it builds it, the others wait. Its stages go to the cache that builds in tests use.
    """
    shared = shared_folder(tmp_path_factory)
    name = profile if (target, precision) == ("cpu", "fp32") else f"{profile}-{target}-{precision}"
    out, cache = shared / "exported" / name, shared / "export-cache"
    with FileLock(shared / f"exported-{name}.lock"):
        if not out.exists():  # a build that failed leaves no folder
            options = ["--profile", profile, "--target", target, "--precision", precision, "--out", out]
            options += ["--cache", cache, *([] if target == "cpu" else ["--ignore-estimate"])]
            command = [sys.executable, ROOT / "export" / "build_engines.py", *options]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
    return out
