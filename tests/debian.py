"""Programs of Debian's for the tests, unpacked into a folder: no root is needed, the system's packages are left alone.

`unpacked` gives another architecture's packages with all that they need. `installed` gives a program of this
machine's: the system's own, if it has one, else one that is fetched with whatever this system lacks of its needs.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

_STATUS = Path("/var/lib/dpkg/status")  # what this system has


class Unavailable(Exception):
    """The recipe cannot be followed here; one sentence says what is missing."""


@dataclass(frozen=True)
class Program:
    """One that can be started: its file, and what its environment must have beside the caller's own."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)


def unpacked(folder: Path, architecture: str, names: Sequence[str]) -> Path:
    """The folder's `root`, with the packages of these names and all that they need; made anew if it is not whole."""
    return _root(folder, architecture, names, status=Path("/dev/null"))


def installed(folder: Path, name: str, packages: Sequence[str], file: str, version: str = "--version") -> Program:
    """The program `name` of PATH, or `file` of `packages`, which `folder` keeps; Unavailable if neither can be."""
    if found := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        return Program(Path(found))
    if platform.machine() != "x86_64" or not _STATUS.exists():
        raise Unavailable(f"{name} is not on PATH, and this is no Debian on x86_64, whose package would be fetched")
    root = _root(folder, "amd64", packages, status=_STATUS)
    libraries = sorted({path.parent for path in root.glob("usr/lib/x86_64-linux-gnu/**/lib*.so*")})
    program = Program(root / file, {"LD_LIBRARY_PATH": ":".join(map(str, libraries))} if libraries else {})
    environment = {**os.environ, **program.environment}
    done = subprocess.run([program.path, version], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{name} as fetched does not start here: {done.stderr.strip()[:300]}; install {packages[0]}")
    return program


def _root(folder: Path, architecture: str, names: Sequence[str], status: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / "root"
    with FileLock(folder / "lock"):
        if not (folder / "ready").exists():
            shutil.rmtree(root, ignore_errors=True)
            for package in _fetched(folder / "apt", architecture, names, status):
                _call(["dpkg", "-x", package, root], "a package cannot be unpacked")
            shutil.rmtree(folder / "apt")
            (folder / "ready").touch()
    return root


def _fetched(folder: Path, architecture: str, names: Sequence[str], status: Path) -> list[Path]:
    """The packages, and all that they need which is not in the list `status`, as files."""
    if shutil.which("apt-get") is None:
        raise Unavailable(f"apt-get is not here, which fetches {names[0]} for {architecture}; on Debian 12 this runs")
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = {
        "APT::Architecture": architecture, "APT::Architectures": architecture, "APT::Update::Error-Mode": "any",
        "APT::Sandbox::User": "", "Debug::NoLocking": "1", "Dir::State": folder / "state",
        "Dir::State::status": status, "Dir::Cache": folder / "cache",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    failed = f"apt-get cannot fetch {names[0]} for {architecture}"
    _call([*apt, "update"], failed)
    _call([*apt, "install", "-y", "--download-only", "--no-install-recommends", *names], failed)
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def _call(command: Sequence[str | Path], failed: str) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()[-1:]
        raise Unavailable(f"{failed} ({' '.join(said)[:300]}); with Debian's package archive in reach this runs")
