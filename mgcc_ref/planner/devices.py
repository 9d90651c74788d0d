"""Devices by their published peaks, dense, at the clocks of their highest power mode."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class DeviceClass(enum.StrEnum):
    """Devices with one set of efficiency factors."""

    ORIN = "orin"
    RTX = "rtx"


@dataclass(frozen=True)
class Device:
    """Peaks in TFLOP/s and TOP/s without sparsity; fp16 is with fp16 accumulation, the fastest published rate."""

    name: str
    title: str
    kind: DeviceClass
    fp16_tflops: float
    int8_tops: float
    bandwidth_gb_s: float
    memory_gb: float
    source: str

    @property
    def usable_gb(self) -> float:
        """Memory that the system leaves for a request, in GB."""
        return round(self.memory_gb - _TAKEN_GB[self.kind], 1)


#: A Jetson's memory is also the system's. Measured on an Orin Nano 8 GB: 5.2 GB are left for the GPU
#: (https://ericxliu.me/posts/benchmarking-llms-on-jetson-orin-nano); the others are assumed to lose as much.
_SYSTEM_GB = 8 - 5.2
_DESKTOP_GB = 1.0  # of a card that also drives a screen: an assumption
_TAKEN_GB = {DeviceClass.ORIN: _SYSTEM_GB, DeviceClass.RTX: _DESKTOP_GB}


def _orin(name: str, title: str, multiprocessors: int, gpu_mhz: int, bandwidth_gb_s: float, gb: int) -> Device:
    """Orin's GPU does 2048 fp16 operations a clock and multiprocessor, and twice as many in INT8.

    That is what the 170 sparse INT8 TOPS of 16 multiprocessors at 1.3 GHz come to (Jetson AGX Orin Series Technical
    Brief); DLAs are left out, since nothing here runs on them.
    """
    tflops = multiprocessors * 2048 * gpu_mhz / 1e6
    source = f"Jetson Orin data sheets: {multiprocessors} multiprocessors, {gpu_mhz} MHz; technical brief for the rate"
    return Device(name, title, DeviceClass.ORIN, tflops, 2 * tflops, bandwidth_gb_s, gb, source)


_RTX = DeviceClass.RTX
_ADA = "Ada GPU architecture whitepaper, appendix"
_AMPERE = "GA102 whitepaper: 1024 fp16 operations a clock and multiprocessor"
PLANNED = (
    _orin("orin-nano-8gb", "Jetson Orin Nano 8 GB, 15 W", 8, 625, 68.0, 8),
    _orin("orin-nano-8gb-super", "Jetson Orin Nano 8 GB, MAXN SUPER", 8, 1020, 102.0, 8),
    _orin("orin-nx-16gb", "Jetson Orin NX 16 GB, MAXN", 8, 918, 102.4, 16),
    _orin("agx-orin-64gb", "Jetson AGX Orin 64 GB, MAXN", 16, 1300, 204.8, 64),
    Device(
        "rtx-3060", "GeForce RTX 3060 12 GB", _RTX, 51.0, 102.0, 360.0, 12, f"{_AMPERE}; 28 at 1.777 GHz; 192 bit GDDR6"
    ),
    Device("rtx-4080", "GeForce RTX 4080 16 GB", _RTX, 194.9, 389.9, 716.8, 16, _ADA),
    Device("rtx-4090", "GeForce RTX 4090 24 GB", _RTX, 330.3, 660.6, 1008.0, 24, _ADA),
    Device("rtx-5090", "GeForce RTX 5090 32 GB", _RTX, 419.0, 838.0, 1792.0, 32, "RTX Blackwell whitepaper, appendix"),
)
#: Devices for tests of the predictions only.
TESTED_ON = (Device("a10", "A10 24 GB", _RTX, 125.0, 250.0, 600.0, 24, "A10 data sheet"),)
DEVICES = {device.name: device for device in (*PLANNED, *TESTED_ON)}
