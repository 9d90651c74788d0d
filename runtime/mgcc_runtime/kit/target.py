"""The device that a kit is for, in the words of pip and of package metadata."""

from __future__ import annotations

import enum
from dataclasses import dataclass

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
#: The C library that every device has: Ubuntu 20.04's, so those of JetPack 6 (2.35) and JetPack 7 (2.39) too.
GLIBC = 31  # of 2.31
_OLDEST_GLIBC = {"aarch64": 17, "x86_64": 5}  # of which any wheel was ever tagged


class Use(str, enum.Enum):
    """What a kit is for."""

    RUNTIME = "runtime"
    KIOSK = "kiosk"  # the server and its page too, started with the device


class Processor(str, enum.Enum):
    """As `uname -m` says it."""

    AARCH64 = "aarch64"
    X86_64 = "x86_64"


@dataclass(frozen=True)
class Target:
    """A Linux device with CPython."""

    python: str  # one of PYTHONS
    processor: Processor

    def __str__(self) -> str:
        return f"Python {self.python} on {self.processor.value}"

    @property
    def tags(self) -> tuple[str, ...]:
        """Platform tags of the wheels that the device can load, the best first."""
        machine = self.processor.value
        versions = range(GLIBC, _OLDEST_GLIBC[machine] - 1, -1)
        return (*(f"manylinux_2_{glibc}_{machine}" for glibc in versions), f"manylinux2014_{machine}")

    def environments(self) -> tuple[dict[str, str], ...]:
        """What markers of requirements are held against: of the Python's first release and of one after its last."""
        return tuple(
            {
                "implementation_name": "cpython",
                "implementation_version": f"{self.python}.{patch}",
                "os_name": "posix",
                "platform_machine": self.processor.value,
                "platform_python_implementation": "CPython",
                "platform_release": "",
                "platform_system": "Linux",
                "platform_version": "",
                "python_full_version": f"{self.python}.{patch}",
                "python_version": self.python,
                "sys_platform": "linux",
            }
            for patch in (0, 99)
        )
