"""The size of an installation of the runtime: with the engines that a bundle needs, and with ONNX Runtime alone."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from mgcc_benchmarks.peers.client import ROOT
from mgcc_benchmarks.peers.workspace import run_command
from mgcc_runtime.bundle.folder import Manifest
from mgcc_runtime.engines import extra_of

ALONE = ("cpu",)  # ONNX Runtime and no other engine


def extras_of(manifest: Manifest) -> tuple[str, ...]:
    """The extras that the engines of a bundle's graphs need, in order; KeyError for an unknown engine."""
    return tuple(sorted({extra_of(graph.engine) for graph in manifest.graphs().values()}))


def requirements(manifest: Manifest) -> tuple[str, ...]:
    """The requirements, each installed by itself: for the bundle, and with ONNX Runtime alone where that differs."""
    return tuple(f"mgcc-edge[{','.join(extras)}]" for extras in dict.fromkeys((extras_of(manifest), ALONE)))


def _site(folder: Path, extras: tuple[str, ...]) -> Path:
    return folder / f"site-{'-'.join(extras)}"


def install(folder: Path, manifest: Manifest) -> None:
    """Install the runtime into folders of `folder`, without what was there; PeerError if pip fails."""
    for old in folder.glob("site*"):
        shutil.rmtree(old)
    for extras in dict.fromkeys((extras_of(manifest), ALONE)):
        what = f"{ROOT}[{','.join(extras)}]"
        run_command((sys.executable, "-m", "pip", "install", "--quiet", "--target", _site(folder, extras), what))


def installed_mb(folder: Path, extras: tuple[str, ...]) -> float:
    """The size of an installation in MB of 10^6 bytes: all its files, without the bundle."""
    return sum(path.stat().st_size for path in _site(folder, extras).rglob("*") if path.is_file()) / 1e6
