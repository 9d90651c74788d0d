"""Wheels that the tests install offline, a folder by Python: `python tools/fetch_wheelhouses.py`, part of `make setup`.

The Pythons need not be here: wheels are fetched for them as `mgcc kit` does it, in the versions of constraints.txt.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mgcc_runtime.kit.own_wheel import own_wheel
from mgcc_runtime.kit.target import Processor, Target
from mgcc_runtime.kit.wheels import fetch

ROOT = Path(__file__).parents[1]
#: JetPack 6's and JetPack 7's, in which the tests install the wheel where the machine has them, and the tests' own.
PYTHONS = ("3.10", "3.12", ".".join(platform.python_version_tuple()[:2]))


def constraints() -> list[str]:
    """The lines of constraints.txt that pin a version, without comments."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [pin for line in lines if (pin := line.partition("#")[0].strip())]


def fetch_all(out: Path, pythons: tuple[str, ...] = PYTHONS) -> None:
    """Fill `out`/PYTHON with what `mgcc-edge[cpu]` needs there, and pip; not with mgcc-edge itself, which changes."""
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as pool:
        own = own_wheel(None, Path(scratch))
        wanted = (f"mgcc-edge[cpu] @ {own.as_uri()}", "pip")

        def fill(python: str) -> None:
            folder = out / python
            shutil.rmtree(folder, ignore_errors=True)
            fetch(wanted, Target(python, Processor(platform.machine())), folder, constraints())
            (folder / own.name).unlink()

        list(pool.map(fill, sorted(set(pythons))))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(sys.prefix) / "wheelhouse", metavar="DIR")
    fetch_all(parser.parse_args().out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
