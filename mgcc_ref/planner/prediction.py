"""A request on a device: its stages, their sum, and whether the device has the memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mgcc_ref.planner.counts import NetworkWork
from mgcc_ref.planner.devices import Device, DeviceClass
from mgcc_ref.planner.roofline import predict, predict_memory
from mgcc_ref.precision import Precision

NOTICE = "A PREDICTION from published peaks; nothing here was measured on these devices."


def predict_device(
    device: Device, network: NetworkWork, precision: Precision, otherwise: Mapping[str, Precision] | None = None
) -> dict[str, Any]:
    """Stages, total and memory on one device; times in ms, memory in GB. `otherwise`: the precision of some calls."""
    if precision is Precision.INT8 and device.kind is DeviceClass.RTX:
        precision = Precision.INT8_WEIGHTS  # TensorRT-RTX, which the target uses there, has INT8 for weights alone
    stages, total_ms = {}, 0.0
    for call in network.calls:
        cost = predict(call.works, device, (otherwise or {}).get(call.name, precision))
        total_ms += call.calls * cost.ms
        stages[call.name] = {
            "ms_per_call": round(cost.ms, 3), "calls": call.calls, "ms": round(call.calls * cost.ms, 3),
            "bound": cost.bound.value, "gflops_per_call": round(sum(w.flops for w in call.works) / 1e9, 3),
            "products_per_call": len(call.works),
        }  # fmt: skip
    memory = predict_memory(network, device, precision)
    parts = {name: round(value, 3) for name, value in asdict(memory).items()}
    return {
        "device": device.name,
        "title": device.title,
        "precision": precision.value,
        "peaks": {key: asdict(device)[key] for key in ("fp16_tflops", "int8_tops", "bandwidth_gb_s", "source")},
        "stages": stages,
        "total_ms": round(total_ms, 2),
        "memory_gb": {**parts, "total": round(memory.total, 3)},
        "fits": memory.fits,
    }
