"""Read the signatures of the CUDA driver's functions off CUDA's own header, into tests/runtime/cuda_api/.

    python tools/read_cuda_api.py [--out DIR]

It reads the functions that `mgcc_runtime.device.cuda_driver` calls and the constants that it names, of each CUDA
release that a JetPack has. It needs pip, no GPU and no CUDA: the header comes with the wheels of CUDA's runtime.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from mgcc_runtime.commands.console import command, note
from mgcc_runtime.device.cuda_driver import SIGNATURES
from mgcc_runtime.errors import EXIT_DONE

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "runtime" / "cuda_api"
#: CUDA release -> the distribution that has its header.
RELEASES = {
    "12.6": "nvidia-cuda-runtime-cu12==12.6.77",  # JetPack 6.1 and 6.2
    "13.0": "nvidia-cuda-runtime==13.0.96",  # JetPack 7.0 and 7.1
    "13.2": "nvidia-cuda-runtime==13.2.75",  # JetPack 7.2
}
CONSTANTS = (
    "CUDA_ERROR_OUT_OF_MEMORY", "CUDA_ERROR_INVALID_CONTEXT", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
    "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR",
    "CU_DEVICE_ATTRIBUTE_INTEGRATED", "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT", "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL",
    "CU_STREAM_NON_BLOCKING",
)  # fmt: skip


def read_header(text: str) -> dict[str, dict[str, object]]:
    """Arguments of each function by the name that the driver exports it under, and the constants' values."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    renamed = dict(re.findall(r"^#define (cu\w+)\s+(?:__CUDA_API_\w+\()?(cu\w+)\)?\s*$", text, re.MULTILINE))
    if old := {name: renamed[name] for name in SIGNATURES if renamed.get(name, name) != name}:
        raise SystemExit(f"these names are those of older interfaces, to be replaced: {old}")
    exported = {name: name for name in SIGNATURES} | {a: b for a, b in renamed.items() if b in SIGNATURES}
    declared = re.findall(r"CUresult CUDAAPI (cu\w+)\(([^)]*)\);", text)
    # the first of several declarations is kept: those of older releases come later in the header
    functions = {exported[name]: _arguments(told) for name, told in reversed(declared) if name in exported}
    if missing := {*SIGNATURES} - {*functions}:
        raise SystemExit(f"the header declares no {', '.join(sorted(missing))}")
    values = {name: int(_value(text, name), 0) for name in CONSTANTS}
    return {"functions": dict(sorted(functions.items())), "constants": values}


def _arguments(told: str) -> list[str]:
    """Types alone: "size_t bytesize" is size_t, "void **pp" is void **."""
    found = [" ".join(one.split()) for one in told.split(",")]
    return [re.sub(r"\s*(\**)\s*\w+$", r" \1", one).strip() for one in found if one != "void"]


def _value(text: str, name: str) -> str:
    found = re.search(rf"\b{name}\s*=\s*(\w+)", text)
    if found is None:
        raise SystemExit(f"the header has no {name}")
    return found[1]


def header_of(release: str) -> str:
    """cuda.h of a release."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--dest", folder, RELEASES[release]], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/include/cuda.h"))
            return archive.read(name).decode()


@command("read_cuda_api.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files; returns the exit code."""
    parser = argparse.ArgumentParser(prog="read_cuda_api.py", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for release in RELEASES:
        path = options.out / f"cuda-{release}.json"
        path.write_text(json.dumps(read_header(header_of(release)), indent=1) + "\n", encoding="utf-8")
        note(str(path))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
