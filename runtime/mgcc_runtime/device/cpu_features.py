"""What this machine's CPU can do in one instruction, as far as exactness and speed of lower precision go by it."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

#: Sums of byte products in 32 bits. Without any of these an x86 CPU sums pairs of products of an unsigned and a signed
#: byte in 16 bits, which saturate: of codes up to 127, products of 100 x 576 x 1,536 were off by up to a fifth.
VNNI = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"})
#: The names are Linux's own, of /proc/cpuinfo: of x86, then of arm64.
_TOLD = VNNI | {
    "sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_bf16", "amx_bf16", "amx_tile",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
}  # fmt: skip
#: What decides which engine and precision is fastest: kinds of arithmetic, each of them under several names.
_KINDS = {
    "avx2": frozenset({"avx2"}), "avx512": frozenset({"avx512f"}), "vnni": VNNI, "amx": frozenset({"amx_tile"}),
    "bf16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}), "neon": frozenset({"asimd"}),
    "dotprod": frozenset({"asimddp"}), "i8mm": frozenset({"i8mm"}), "sve": frozenset({"sve", "sve2"}),
}  # fmt: skip
_X86 = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def cpu_features() -> tuple[str, ...]:
    """This CPU's features by Linux's names, sorted; empty where the system does not tell."""
    try:
        return parse_features(CPUINFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ()  # not Linux


def parse_features(text: str) -> tuple[str, ...]:
    """Of /proc/cpuinfo: what all of the cores have; a big core may have more than a little one."""
    cores = [
        frozenset(line.split(":", 1)[1].split())
        for line in text.splitlines()
        if line.startswith(("flags", "Features")) and ":" in line
    ]
    return tuple(sorted(_TOLD.intersection(*cores))) if cores else ()


def arithmetic(features: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of arithmetic that speed goes by, such as avx2, vnni and bf16."""
    return tuple(kind for kind, names in _KINDS.items() if names.intersection(features))


def sums_bytes_in_16_bits(features: tuple[str, ...] | None = None, machine: str = "") -> bool:
    """Whether products of unsigned by signed bytes saturate here; True of an x86 CPU that does not tell.

    arm64 never does: its instructions sum in 32 bits, with dot products (asimddp) or without.
    """
    features = cpu_features() if features is None else features
    return (machine or platform.machine()).lower() in _X86 and not VNNI.intersection(features)
