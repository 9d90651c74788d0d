"""Number formats of weights and activations, by their names in reports, manifests and command lines."""

from __future__ import annotations

import enum


class Precision(enum.StrEnum):
    """A stage's precision, requested or built. Exporter, calibration and planner each accept some of them."""

    AUTO = "auto"  # chosen for each stage
    FP32 = "fp32"
    BF16 = "bf16"  # the fp32 graph, computed in bfloat16
    FP16 = "fp16"
    INT8 = "int8"  # weights, and activations with calibrated ranges; weights alone on engines without the latter
    INT8_DYNAMIC = "int8-dynamic"  # activations in 8 bits with ranges measured at each call
    INT8_WEIGHTS = "int8-weights"
    INT4 = "int4"  # weights; those that cannot be 4-bit are 8-bit; activations are fp16
    INT4_WEIGHTS = "int4-weights"
