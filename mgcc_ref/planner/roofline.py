"""The prediction: a roofline for each product, with efficiency factors by class of device.

A product takes the longer of its arithmetic and its memory traffic, each at a measured share of the published peak,
plus a fixed time for its launch and for operations that are not fused into it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mgcc_ref.planner.counts import NetworkWork, Work
from mgcc_ref.planner.devices import Device, DeviceClass
from mgcc_ref.precision import Precision

_ACTIVATION_BYTES = 2  # fp16; also beside INT8, where about half stay fp16
_RUNTIME_GB = 0.8  # CUDA context, engine libraries and Python: an assumption
_LIVE_TENSORS = 4  # live at once (residuals, skips), each as large as the largest product's: an assumption


#: Bits of a weight with its share of scales (4 bits in blocks of 32, the most in published builds). Weights that cannot
#: be 4-bit, filters of convolutions and matrices without whole blocks, are 8-bit in such builds.
WEIGHT_BITS = {Precision.FP16: 16.0, Precision.INT8: 8.0, Precision.INT8_WEIGHTS: 8.0, Precision.INT4_WEIGHTS: 4.5}


def weight_bytes(weights: int, narrow: int, precision: Precision) -> float:
    """Bytes of `weights` elements, of which `narrow` take 4 bits at INT4."""
    if precision is not Precision.INT4_WEIGHTS:
        return weights * WEIGHT_BITS[precision] / 8
    return (narrow * WEIGHT_BITS[precision] + (weights - narrow) * WEIGHT_BITS[Precision.INT8_WEIGHTS]) / 8


@dataclass(frozen=True)
class Factors:
    """The shares of the published peaks that are reached, and microseconds on top of each product."""

    compute: float
    memory: float
    overhead_us: float


#: Orin: all three fitted. RTX: `compute` fitted; no published figure allows a fit of the others, so `memory` is
#: Orin's and the overhead that of a replayed CUDA graph, both assumptions. `published_times.fit` gives the fits.
FACTORS: Mapping[DeviceClass, Factors] = {
    DeviceClass.ORIN: Factors(compute=0.37, memory=0.95, overhead_us=14.8),
    DeviceClass.RTX: Factors(compute=0.46, memory=0.95, overhead_us=3.0),
}


class Bound(enum.StrEnum):
    COMPUTE = "compute"
    MEMORY = "memory"
    OVERHEAD = "overhead"


@dataclass(frozen=True)
class Cost:
    """The time of one call in ms; `bound` takes the largest part of it."""

    ms: float
    bound: Bound


def predict(works: Iterable[Work], device: Device, precision: Precision, factors: Factors | None = None) -> Cost:
    """The time of these products in sequence."""
    f = factors or FACTORS[device.kind]
    operations_s = (device.int8_tops if precision is Precision.INT8 else device.fp16_tflops) * 1e12 * f.compute
    bytes_s = device.bandwidth_gb_s * 1e9 * f.memory
    spent = dict.fromkeys(Bound, 0.0)
    for work in works:
        traffic = weight_bytes(work.weights, work.narrow, precision) + work.activations * _ACTIVATION_BYTES
        arithmetic_s, traffic_s = work.flops / operations_s, traffic / bytes_s
        spent[Bound.COMPUTE if arithmetic_s >= traffic_s else Bound.MEMORY] += max(arithmetic_s, traffic_s)
        spent[Bound.OVERHEAD] += f.overhead_us * 1e-6
    return Cost(sum(spent.values()) * 1e3, max(spent, key=lambda bound: spent[bound]))


@dataclass(frozen=True)
class Memory:
    """Memory while a request runs, in GB of 10^9 bytes."""

    weights: float
    token_table: float
    cache: float
    activations: float
    runtime: float
    usable: float

    @property
    def total(self) -> float:
        return self.weights + self.token_table + self.cache + self.activations + self.runtime

    @property
    def fits(self) -> bool:
        return self.total <= self.usable


def predict_memory(network: NetworkWork, device: Device, precision: Precision) -> Memory:
    """Memory with all stages loaded, and the fp16 cache at its longest."""
    largest = max(work.activations for call in network.calls for work in call.works)
    shared = device.kind is DeviceClass.ORIN  # with a card, the token table is in the host's memory
    return Memory(
        weights=weight_bytes(network.weights, network.narrow, precision) / 1e9,
        token_table=network.table_bytes / 1e9 if shared else 0.0,
        cache=network.cache_elements * _ACTIVATION_BYTES / 1e9,
        activations=_LIVE_TENSORS * largest * _ACTIVATION_BYTES / 1e9,
        runtime=_RUNTIME_GB,
        usable=device.usable_gb,
    )
