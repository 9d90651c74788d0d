"""aarch64 on an x86 machine: Debian's Python for arm64 on QEMU's user mode, in one folder, without root.

Its instructions are translated one by one, so what a program computes is what aarch64 gives; times mean nothing. No
process can be started inside, since the kernel would need QEMU registered for that; the runtime starts none.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.debian import Unavailable, unpacked

#: ONNX Runtime 1.32.0 ends the process as it is imported on QEMU 7.2, which Debian 12 has; 1.23.2 and 1.20.1 do not.
PINNED = ("onnxruntime==1.23.2",)
_PYTHON = ("python3", "libpython3-stdlib", "libstdc++6", "libgomp1", "zlib1g")
_EMULATOR = ("qemu-user-static",)


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
    host = unpacked(folder / "amd64", "amd64", _EMULATOR)
    root = unpacked(folder / "arm64", "arm64", _PYTHON)
    interpreter = (root / "usr" / "bin" / "python3").resolve()
    return Emulator(host / "usr" / "bin" / "qemu-aarch64-static", root, interpreter)
