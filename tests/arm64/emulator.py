"""aarch64 on an x86 machine: Debian's Python for arm64 on QEMU's user mode, in one folder, without root.

Its instructions are translated one by one, so what a program computes is what aarch64 gives; times mean nothing. No
process can be started inside, since the kernel would need QEMU registered for that; the runtime starts none.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

#: ONNX Runtime 1.32.0 ends the process as it is imported on QEMU 7.2, which Debian 12 has; 1.23.2 and 1.20.1 do not.
PINNED = ("onnxruntime==1.23.2",)
_PYTHON = ("python3", "libpython3-stdlib", "libstdc++6", "libgomp1", "zlib1g")
_EMULATOR = ("qemu-user-static",)


class Unavailable(Exception):
    """The recipe cannot be followed here; one sentence says what is missing."""


@dataclass(frozen=True)
class Emulator:
    """Runs programs of aarch64."""

    qemu: Path
    root: Path  # of the arm64 system
    interpreter: Path

    @property
    def python(self) -> str:
        """The version of its Python, such as 3.11."""
        return self.interpreter.name.removeprefix("python")

    def run(self, *words: str | Path, cwd: Path, text: str = "") -> str:
        """Output of a program of aarch64; what it said goes into the failure if it failed."""
        command = [str(word) for word in (self.qemu, *words)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
        environment = {**clean, "QEMU_LD_PREFIX": str(self.root), "OMP_NUM_THREADS": "1", "PIP_NO_COMPILE": "1"}
        done = subprocess.run(
            command, cwd=cwd, env=environment, input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def prepare(folder: Path) -> Emulator:
    """The emulator in `folder`, fetched with apt-get the first time; Unavailable if that cannot be."""
    if platform.machine() != "x86_64":
        raise Unavailable(
            f"this machine is {platform.machine()}, the emulation is for x86_64; `make test` runs here as it is"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "ready").exists():
            for name, architecture, packages in (("host", "amd64", _EMULATOR), ("root", "arm64", _PYTHON)):
                shutil.rmtree(folder / name, ignore_errors=True)
                for package in _packages(folder / f"apt-{architecture}", architecture, packages):
                    _call(["dpkg", "-x", package, folder / name], "a package cannot be unpacked")
            (folder / "ready").touch()
    root = folder / "root"
    interpreter = (root / "usr" / "bin" / "python3").resolve()
    return Emulator(folder / "host" / "usr" / "bin" / "qemu-aarch64-static", root, interpreter)


def _packages(folder: Path, architecture: str, names: Sequence[str]) -> list[Path]:
    """The packages and all that they depend on, as files; the system's own lists and packages are left alone."""
    if shutil.which("apt-get") is None:
        raise Unavailable(
            "apt-get is not here, which fetches Debian's Python for arm64 and QEMU; on Debian 12 this runs"
        )
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = {
        "APT::Architecture": architecture, "APT::Architectures": architecture, "APT::Update::Error-Mode": "any",
        "APT::Sandbox::User": "", "Debug::NoLocking": "1", "Dir::State": folder / "state",
        "Dir::State::status": "/dev/null", "Dir::Cache": folder / "cache",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    failed = f"apt-get cannot fetch {' and '.join(names[:1])} for {architecture}"
    _call([*apt, "update"], failed)
    _call([*apt, "install", "-y", "--download-only", "--no-install-recommends", *names], failed)
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def _call(command: Sequence[str | Path], failed: str) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()[-1:]
        raise Unavailable(f"{failed} ({' '.join(said)[:300]}); with Debian's package archive in reach this runs")
