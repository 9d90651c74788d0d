"""What machine this is, and how much memory the process has used."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mgcc_runtime.device.cpu_features import available_cores, cpu_features

_PACKAGES = (
    "mgcc-edge", "numpy", "pillow", "tokenizers", "onnxruntime", "openvino", "onnxruntime-gpu", "tensorrt",
    "tensorrt_rtx_cu13_bindings",
)  # fmt: skip
MEMINFO = Path("/proc/meminfo")
NVIDIA_SMI = "nvidia-smi"
#: nvidia-smi's name of a field -> ours; the memory comes in MiB.
_GPU_FIELDS = {
    "name": "name", "compute_cap": "compute_capability", "driver_version": "driver", "memory.total": "memory_mib",
}  # fmt: skip
#: In the table that nvidia-smi prints; drivers of 2026 call it "CUDA UMD Version".
_CUDA = re.compile(r"\bCUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)")
_L4T = re.compile(r"^# R(\d+) \(release\), REVISION: ([\d.]+)", re.MULTILINE)
_PATIENCE_S = 10.0


def describe_machine() -> dict[str, Any]:
    """A description to stand beside measured numbers."""
    return {
        "cpu": _cpu_name(),
        "cpu_features": list(cpu_features()),
        "cores": available_cores(),
        "memory_gb": _memory_gb(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := installed_version(name))},
        **describe_gpus(),
    }


@functools.cache
def describe_gpus() -> dict[str, Any]:
    """`gpus` (name, compute capability, driver, MiB), the `cuda` version that the driver takes, and the `jetson`.

    From nvidia-smi; where it is absent or says little, as on a Jetson, the CUDA driver itself is asked, too. Without a
    GPU the list is empty; without a Jetson that key is absent.
    """
    listed = tool_output(NVIDIA_SMI, f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits")
    gpus, cuda = parse_gpus(listed), parse_cuda(tool_output(NVIDIA_SMI))
    if cuda is None or not gpus or gpus[0]["compute_capability"] is None:
        gpus, cuda = _with_driver(gpus, cuda)
    jetson = _jetson()
    return {"gpus": gpus, "cuda": cuda} | ({"jetson": jetson} if jetson else {})


def parse_gpus(text: str) -> list[dict[str, str | None]]:
    """Of `nvidia-smi --query-gpu=... --format=csv,noheader,nounits`: a GPU for each line, None for what it lacks."""
    found: list[dict[str, str | None]] = []
    for line in text.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(_GPU_FIELDS):
            said = (None if value.startswith("[") else value for value in values)  # [N/A], [Not Supported]
            found.append(dict(zip(_GPU_FIELDS.values(), said, strict=True)))
    return found


def parse_cuda(text: str) -> str | None:
    """The newest CUDA that the driver takes, of the table of `nvidia-smi`; None if it has none."""
    found = _CUDA.search(text)
    return found[1] if found else None


def parse_l4t(text: str) -> str | None:
    """The release of Jetson Linux, such as 36.4.3, of /etc/nv_tegra_release; None if the text is another."""
    found = _L4T.search(text)
    return f"{found[1]}.{found[2]}" if found else None


def installed_version(package: str) -> str | None:
    """Version of an installed package, None if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def high_water_bytes() -> int:
    """The most memory this process has had resident, or since that was reset, by Linux; 0 on other systems."""
    return _told_bytes(Path("/proc/self/status"), "VmHWM:")


def resident_bytes() -> int:
    """The memory that this process has resident now, by Linux; 0 on other systems."""
    return _told_bytes(Path("/proc/self/status"), "VmRSS:")


def available_memory_bytes(told: Path = MEMINFO) -> int:
    """Memory that this machine could give now without swapping; 0 where the system does not tell."""
    return _told_bytes(told, "MemAvailable:")


def _told_bytes(path: Path, field: str) -> int:
    """A field that a file of /proc has in kB; 0 without it."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return 0


def peak_rss_bytes() -> int | None:
    """The most memory this process has had resident; None where the system does not say.

    On Linux `ru_maxrss` of a new process starts with what its parent had resident; the high water is its own.
    """
    if own := high_water_bytes():
        return own
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux KiB


def peak_rss_mb() -> float | None:
    """`peak_rss_bytes` in MB of 10^6 bytes."""
    peak = peak_rss_bytes()
    return None if peak is None else round(peak / 1e6, 1)


def _with_driver(gpus: list[dict[str, str | None]], cuda: str | None) -> tuple[list[dict[str, str | None]], str | None]:
    """The same, what is missing of the first GPU filled in by the CUDA driver; as it was if there is none."""
    from mgcc_runtime.device.cuda_driver import Device
    from mgcc_runtime.errors import EngineError

    try:
        device = Device.named()
    except EngineError:
        return gpus, cuda
    first = dict(gpus[0]) if gpus else dict.fromkeys(_GPU_FIELDS.values())
    first["name"] = first["name"] or device.name
    first["compute_capability"] = first["compute_capability"] or device.compute_capability
    return [first, *gpus[1:]], cuda or device.driver_version


def _jetson() -> dict[str, str | None] | None:
    l4t = parse_l4t(_text(Path("/etc/nv_tegra_release")))
    model = _text(Path("/proc/device-tree/model")).rstrip("\0\n")
    return {"model": model or None, "l4t": l4t} if l4t or "jetson" in model.lower() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # another system


def tool_output(*command: str) -> str:
    """What a tool prints; empty if it is absent, fails or hangs: a report then lacks a line, and no more."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
