"""Wheels that the tests install offline, a folder by Python: `python tools/fetch_wheelhouses.py`, part of `make setup`.

The Pythons need not be here: wheels are fetched for them as `mgcc kit` does it, in the versions of constraints.txt.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mgcc_runtime.commands.console import command
from mgcc_runtime.errors import EXIT_DONE
from mgcc_runtime.kit.own_wheel import own_wheel
from mgcc_runtime.kit.target import Processor, Target
from mgcc_runtime.kit.wheels import fetch

ROOT = Path(__file__).parents[1]
#: OpenAI's client as it was a year ago, with what the present one no longer needs; tests run the server against both.
OLD_CLIENT = ("openai==2.8.1", "httpx==0.28.1", "httpcore==1.0.9", "distro==1.9.0")
#: JetPack 6's and JetPack 7's, in which the tests install the wheel where the machine has them, and the tests' own.
PYTHONS = ("3.10", "3.12", ".".join(platform.python_version_tuple()[:2]))


def constraints() -> list[str]:
    """The lines of constraints.txt that pin a version, without comments."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [pin for line in lines if (pin := line.partition("#")[0].strip())]


def fetch_all(out: Path, pythons: tuple[str, ...] = PYTHONS) -> None:
    """Fill `out`/PYTHON with what `mgcc-edge[cpu,serve]` needs there, and pip; mgcc-edge itself changes."""
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as pool:
        own = own_wheel(None, Path(scratch))
        wanted = (f"mgcc-edge[cpu,serve] @ {own.as_uri()}", "pip")

        def fill(python: str) -> None:
            folder = out / python
            shutil.rmtree(folder, ignore_errors=True)
            fetch(wanted, Target(python, Processor(platform.machine())), folder, constraints())
            (folder / own.name).unlink()

        list(pool.map(fill, sorted(set(pythons))))


def install_old_client(out: Path) -> None:
    """Into a folder of its own below `out`, which tests put on the path before the present client's."""
    folder = out / OLD_CLIENT[0].replace("==", "-")
    shutil.rmtree(folder, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, "--no-deps", "--target", str(folder), *OLD_CLIENT], check=True)


@command("fetch_wheelhouses.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fetch_wheelhouses.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(sys.prefix) / "wheelhouse", metavar="DIR")
    out = parser.parse_args(arguments).out
    fetch_all(out)
    install_old_client(out)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
